/* What a store holds of a text already (reading.h), by the hash of what was read of each document. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/reading.h"

static size_t count_names(const char *text)
{
    size_t n = 1;
    for (; (text = strchr(text, ',')); text++) {
        n++;
    }
    return n;
}

/* The names, and behind the pointers the text that they point into. */
static int split_names(const char ***names, size_t *n_names, const char *text, bool is_one)
{
    const size_t n = is_one ? 1 : count_names(text), n_bytes = strlen(text) + 1;
    int status = memtx__alloc(names, n * sizeof **names + n_bytes, 1);
    if (status) {
        return status;
    }
    char *copy = (char *)(*names + n);
    memcpy(copy, text, n_bytes);
    for (*n_names = 0; *n_names < n; copy += strlen(copy) + 1) {
        (*names)[(*n_names)++] = copy;
        if (!is_one) {
            copy[strcspn(copy, ",")] = '\0';
        }
    }
    return MEMTX_OK;
}

int memtx__scope_parse(enum memtx_scope *scope, const char ***names, size_t *n_names, const char *text,
                       const memtx_store *store)
{
    struct memtx_document document;
    int status = MEMTX_OK;
    *names = NULL;
    *n_names = 0;
    *scope = !text || strcmp(text, "this") == 0 ? MEMTX_SCOPE_DOCUMENT
             : strcmp(text, "all") == 0         ? MEMTX_SCOPE_ALL
                                                : MEMTX_SCOPE_NAMED;
    if (*scope == MEMTX_SCOPE_NAMED) {
        status = split_names(names, n_names, text, memtx_store_document_named(&document, store, text) == MEMTX_OK);
    }
    for (size_t i = 0; i < *n_names && !status; i++) {
        status = memtx_store_document_named(&document, store, (*names)[i]);
    }
    return status;
}

int memtx__past_begins(bool *out, const struct memtx_document *document, const uint32_t *tokens, size_t n)
{
    uint8_t hash[MEMTX_HASH_BYTES];
    int status = MEMTX_OK;
    *out = document->n_read > 0 && document->n_read <= n;
    if (*out) {
        status = memtx_tokens_hash(hash, tokens, (size_t)document->n_read);
        *out = !status && memcmp(hash, document->hash, sizeof hash) == 0;
    }
    return status;
}

static bool names_document(const char *const *names, size_t n_names, const struct memtx_document *document)
{
    bool found = false;
    for (size_t i = 0; i < n_names && !found; i++) {
        found = strcmp(names[i], document->name) == 0;
    }
    return found;
}

int memtx__past_refuse(const memtx_store *store, const struct memtx_reading_options *options,
                       const struct memtx__text *text, const char *continued)
{
    struct memtx_document document;
    enum memtx_scope scope;
    const char **names;
    size_t n_names;
    bool begins = false;
    int status = memtx__scope_parse(&scope, &names, &n_names, options->scope, store);
    for (uint64_t i = 0; !status && !begins && memtx_store_document_at(&document, store, i) == MEMTX_OK; i++) {
        const bool in_scope = scope == MEMTX_SCOPE_ALL || names_document(names, n_names, &document);
        if (in_scope && !options->allow_seen && !(continued && strcmp(continued, document.name) == 0)) {
            status = memtx__past_begins(&begins, &document, text->tokens, text->n_all_tokens);
        }
    }
    memtx__free(names);
    return status || !begins ? status
                             : memtx__fail(MEMTX_E_EXISTS,
                                           "%s: the store holds %llu tokens of it already, as '%s', and in scope: it "
                                           "would find its own future (use another --scope, or --allow-seen)",
                                           text->name, (unsigned long long)document.n_read, document.name);
}

int memtx__past_find(struct memtx_document *out, const memtx_store *store, const struct memtx__text *text)
{
    int status = MEMTX_OK;
    for (uint64_t i = 0; !status && memtx_store_document_at(out, store, i) == MEMTX_OK; i++) {
        bool begins = false;
        if (out->n_read == text->n_tokens) {
            status = memtx__past_begins(&begins, out, text->tokens, text->n_tokens);
        }
        if (begins) {
            return MEMTX_OK;
        }
    }
    return status ? status : memtx__fail(MEMTX_E_NOT_FOUND, "the store does not hold %s", text->name);
}
