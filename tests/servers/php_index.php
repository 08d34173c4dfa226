<?php
// SPDX-License-Identifier: MIT
// What php-fpm is asked for. ?ms=N answers after N milliseconds.
usleep(1000 * (int) ($_GET['ms'] ?? 0));
header('Content-Type: text/plain');
echo 'gen=', getenv('HANDOFF_GENERATION'), ' pid=', getmypid(), "\n";
