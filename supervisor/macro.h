/* SPDX-License-Identifier: MIT */
/* Small language helpers that every file may use: cleanup attributes, hand-over of ownership, array sizes. */
#ifndef HANDOFF_MACRO_H
#define HANDOFF_MACRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Runs `function(&variable)` when the variable goes out of scope. */
#define CLEANUP(function) __attribute__((cleanup(function)))

/* Marks a function whose arguments are a printf format and its values. */
#define PRINTF_LIKE(format_index, first_value) __attribute__((format(printf, format_index, first_value)))

/* The struct that has `pointer` as its `member`. */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
