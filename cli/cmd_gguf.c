/* memtx gguf: what is in a GGUF file. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "memtx/memtx.h"

enum { MOST_TEXT = 72, MOST_ITEMS = 6 };

static const struct cli_option options[] = {
    {"tensors", 0, NULL, "list every tensor, not only how many of each type"},
    {NULL, 0, NULL, NULL},
};

/* A file's own name or text on one line, without what a terminal might act upon. Returns the columns that ASCII takes.
 */
static int print_plain(const char *bytes, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        const bool c1 = c == 0xC2 && i + 1 < n && ((unsigned char)bytes[i + 1] & 0xE0) == 0x80; /* U+0080 .. U+009F */
        columns += c == '\n' ? printf("\\n") : c < 0x20 || c == 0x7F || c1 ? printf("\\x%02x", c) : putchar(c) != EOF;
    }
    return columns;
}

static void print_name(struct memtx_text name, int width)
{
    const int columns = print_plain(name.bytes, name.n_bytes);
    (void)printf("%*s ", columns < width ? width - columns : 0, "");
}

static void print_text(struct memtx_text text)
{
    size_t n = text.n_bytes < MOST_TEXT ? text.n_bytes : MOST_TEXT;
    while (n < text.n_bytes && n > MOST_TEXT - 4 && ((unsigned char)text.bytes[n] & 0xC0) == 0x80) {
        n--; /* not within a character */
    }
    (void)putchar('"');
    (void)print_plain(text.bytes, n);
    (void)printf(text.n_bytes > n ? "\"... (%zu bytes)" : "\"", text.n_bytes);
}

/* Item i of a value that is no text, little-endian as in the file. */
static void print_number(const struct memtx_gguf_value *value, size_t i)
{
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    const size_t size = sizes[value->item_type];
    const unsigned char *bytes = value->bytes + i * size;
    uint64_t bits = 0;
    for (size_t b = 0; b < size; b++) {
        bits |= (uint64_t)bytes[b] << (8 * b);
    }
    const unsigned shift = (unsigned)(64 - 8 * size);
    switch (value->item_type) {
    case MEMTX_GGUF_F32: {
        uint32_t half = (uint32_t)bits;
        float number;
        memcpy(&number, &half, sizeof number);
        (void)printf("%g", (double)number);
        break;
    }
    case MEMTX_GGUF_F64: {
        double number;
        memcpy(&number, &bits, sizeof number);
        (void)printf("%g", number);
        break;
    }
    case MEMTX_GGUF_BOOL:
        (void)printf(bits ? "true" : "false");
        break;
    case MEMTX_GGUF_I8:
    case MEMTX_GGUF_I16:
    case MEMTX_GGUF_I32:
    case MEMTX_GGUF_I64:
        (void)printf("%" PRId64, (int64_t)(bits << shift) >> shift);
        break;
    default:
        (void)printf("%" PRIu64, bits);
        break;
    }
}

static void print_value(const struct memtx_gguf_value *value)
{
    struct memtx_text text;
    size_t cursor = 0;
    (void)printf("  ");
    print_name(value->key, 40);
    if (value->type != MEMTX_GGUF_ARRAY) {
        if (value->type == MEMTX_GGUF_STRING) {
            text = (struct memtx_text){(const char *)value->bytes + 8, value->n_bytes - 8}; /* behind its length */
            print_text(text);
        } else {
            print_number(value, 0);
        }
        (void)putchar('\n');
        return;
    }
    (void)printf("%s[%" PRIu64 "]", memtx_gguf_type_name((int)value->item_type), value->n_items);
    for (size_t i = 0; i < MOST_ITEMS && i < value->n_items; i++) {
        (void)printf(i ? ", " : ": ");
        if (value->item_type != MEMTX_GGUF_STRING) {
            print_number(value, i);
        } else if (memtx_gguf_next_string(&text, value, &cursor)) {
            print_text(text);
        }
    }
    (void)printf(value->n_items > MOST_ITEMS ? ", ...\n" : "\n");
}

static const char *type_name(int type)
{
    const char *name = memtx_tensor_type_name(type);
    return name ? name : "unknown";
}

static void print_tensors(const memtx_gguf *gguf)
{
    for (size_t i = 0; i < memtx_gguf_n_tensors(gguf); i++) {
        const struct memtx_tensor *tensor = memtx_gguf_tensor_at(gguf, i);
        (void)printf("  ");
        print_name(tensor->name, 32);
        (void)printf("%-6s", type_name(tensor->type));
        for (int d = 0; d < tensor->n_dims; d++) {
            (void)printf("%s%" PRIu64, d ? " x " : " ", tensor->dims[d]);
        }
        (void)printf("  at %" PRIu64 ", %zu bytes\n", tensor->offset, tensor->n_bytes);
    }
}

/* How many tensors of each type, values and bytes. */
static void print_types(const memtx_gguf *gguf)
{
    enum { MOST_TYPE = 256 };
    size_t n_tensors[MOST_TYPE] = {0}, n_bytes[MOST_TYPE] = {0};
    uint64_t n_values[MOST_TYPE] = {0};
    for (size_t i = 0; i < memtx_gguf_n_tensors(gguf); i++) {
        const struct memtx_tensor *tensor = memtx_gguf_tensor_at(gguf, i);
        int type = tensor->type >= 0 && tensor->type < MOST_TYPE ? tensor->type : MOST_TYPE - 1;
        n_tensors[type]++;
        n_bytes[type] += tensor->n_bytes;
        n_values[type] += tensor->n_values;
    }
    for (int type = 0; type < MOST_TYPE; type++) {
        if (n_tensors[type]) {
            (void)printf("  %-8s %6zu tensors %14" PRIu64 " values %14zu bytes\n", type_name(type), n_tensors[type],
                         n_values[type], n_bytes[type]);
        }
    }
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const struct cli_option *option;
    const char *argument;
    bool failed = false, all_tensors = false;
    memtx_gguf *gguf;
    while ((option = cli_next_option(&argument, &failed, command, argc, argv))) {
        all_tensors = true;
    }
    if (failed) {
        return EXIT_USAGE;
    }
    if (argc - optind != 1) {
        return cli_fail(EXIT_USAGE, "gguf: name one file (see memtx gguf --help)");
    }
    int status = memtx_gguf_open(&gguf, argv[optind]);
    if (status) {
        return cli_fail_status("gguf", status);
    }
    (void)printf("%s: GGUF version %u, %zu bytes, %zu values, %zu tensors\n", argv[optind], memtx_gguf_version(gguf),
                 memtx_gguf_file_bytes(gguf), memtx_gguf_n_values(gguf), memtx_gguf_n_tensors(gguf));
    for (size_t i = 0; i < memtx_gguf_n_values(gguf); i++) {
        print_value(memtx_gguf_value_at(gguf, i));
    }
    (void)printf("tensors\n");
    if (all_tensors) {
        print_tensors(gguf);
    }
    print_types(gguf);
    memtx_gguf_close(gguf);
    return EXIT_DONE;
}

const struct cli_command cmd_gguf = {
    .name = "gguf",
    .usage = "MODEL",
    .summary = "What is in a GGUF file: its values and tensors.",
    .details = NULL,
    .options = options,
    .run = run,
};
