module handoff.test/server

go 1.19
