/* SPDX-License-Identifier: MIT */
/* Stands in for libFuzzer: gives the fuzz target each kept input of the folders named by the arguments, once. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (1 << 20)

static int replay_file(const char *folder, const char *name)
{
	char path[4096];
	char *text;
	size_t length;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int r = fd_read_file(path, INPUT_MAX, &text, &length);
	if (r < 0) {
		fprintf(stderr, "cannot read %s: %s\n", path, strerror(-r));
		return r;
	}
	/* Without room after it, so that a sanitizer sees a read beyond its end. */
	uint8_t *exact = malloc(length ? length : 1);
	if (exact) {
		memcpy(exact, text, length);
		LLVMFuzzerTestOneInput(exact, length);
	}
	free(exact);
	free(text);
	return exact ? 1 : -1;
}

static int replay_folder(const char *folder)
{
	int count = 0;
	DIR *dir = opendir(folder);
	if (!dir) {
		perror(folder);
		return -1;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (entry->d_name[0] == '.')
			continue;
		int r = replay_file(folder, entry->d_name);
		if (r < 0) {
			count = r;
			break;
		}
		count += r;
	}
	closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int count = replay_folder(argv[i]);
		if (count <= 0) {
			fprintf(stderr, "%s: no input was replayed\n", argv[i]);
			return 1;
		}
		printf("%s: %d inputs\n", argv[i], count);
	}
	return 0;
}
