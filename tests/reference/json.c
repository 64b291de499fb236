/* A small JSON reader (json.h). */
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *json_load(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    if (!file) {
        return NULL;
    }
    (void)fseek(file, 0, SEEK_END);
    long n = ftell(file);
    rewind(file);
    text = calloc((size_t)n + 1, 1);
    if (text && fread(text, 1, (size_t)n, file) != (size_t)n) {
        free(text);
        text = NULL;
    }
    (void)fclose(file);
    return text;
}

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n,:");
}

static const char *skip_string(const char *at)
{
    const char *end = strchr(at + 1, '"');
    return end ? end + 1 : at + strlen(at);
}

/* Past the value that begins at `at`. */
static const char *skip_value(const char *at)
{
    int depth = 0;
    do {
        at = skip_space(at);
        if (*at == '"') {
            at = skip_string(at);
        } else if (*at == '[' || *at == '{') {
            depth++;
            at++;
        } else if (*at == ']' || *at == '}') {
            depth--;
            at++;
        } else {
            at += strcspn(at, ",]}");
        }
    } while (depth > 0 && *at);
    return at;
}

const char *json_find(const char *object, const char *key)
{
    const size_t n = strlen(key);
    const char *at = skip_space(object + 1);
    while (*at == '"') {
        const char *value = skip_space(skip_string(at));
        if (strncmp(at + 1, key, n) == 0 && at[n + 1] == '"') {
            return value;
        }
        at = skip_space(skip_value(value));
    }
    return NULL;
}

const char *json_item(const char *list, size_t i)
{
    const char *at = skip_space(list + 1);
    for (; i && *at != ']'; i--) {
        at = skip_space(skip_value(at));
    }
    return *at == ']' ? NULL : at;
}

size_t json_count(const char *list)
{
    size_t n = 0;
    for (const char *at = skip_space(list + 1); *at && *at != ']'; at = skip_space(skip_value(at))) {
        n++;
    }
    return n;
}

double json_number(const char *object, const char *key)
{
    const char *value = json_find(object, key);
    return value ? strtod(value, NULL) : NAN;
}

int json_is(const char *object, const char *key, const char *text)
{
    const char *value = json_find(object, key);
    return value && *value == '"' && strncmp(value + 1, text, strlen(text)) == 0 && value[strlen(text) + 1] == '"';
}

double *json_numbers(size_t *n_out, const char *object, const char *key)
{
    const char *list = json_find(object, key);
    size_t n = 0;
    *n_out = list ? json_count(list) : 0;
    double *numbers = calloc(*n_out + 1, sizeof *numbers);
    for (const char *at = list ? skip_space(list + 1) : NULL; numbers && n < *n_out; at = skip_space(skip_value(at))) {
        numbers[n++] = strtod(at, NULL);
    }
    return numbers;
}
