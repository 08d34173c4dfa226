/* SPDX-License-Identifier: MIT */
/* Links what handoff links, and sleeps: memory that is the libraries' own. A newline on stdout says that it sleeps. */
#include <bsd/stdlib.h>
#include <cjson/cJSON.h>
#include <unistd.h>

int main(void)
{
	/* A call into each library, or the linker leaves it out. */
	if (!getprogname() || !cJSON_Version() || write(STDOUT_FILENO, "\n", 1) != 1)
		return 1;
	for (;;)
		pause();
}
