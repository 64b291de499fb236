/* The resolver: also in a build without FAISS, which knows no index and says so. */
#include <criterion/criterion.h>
#include <string.h>

#include "indexes.h"

static bool has_faiss(void)
{
    char version[32];
    memtx_index_faiss_version(version, sizeof version);
    return version[0] != 0;
}

Test(indexes, a_scheme_that_nobody_knows)
{
    static const char *const specs[] = {"", "faiss", "Faiss:Flat", "annoy:10", "Flat", "exact"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        const struct memtx_index_operations *operations = (const struct memtx_index_operations *)specs;
        cr_assert_eq(memtx_index_resolve(&operations, specs[i]), MEMTX_E_UNSUPPORTED);
        cr_assert_null(operations);
        cr_assert(strstr(memtx_last_error(), "faiss:..)"), "%s", memtx_last_error());
    }
}

Test(indexes, faiss_or_that_it_is_not_there)
{
    const struct memtx_index_operations *operations = NULL;
    const int status = memtx_index_resolve(&operations, "faiss:Flat");
    if (has_faiss()) {
        cr_assert_eq(status, 0);
        cr_assert_not_null(operations);
    } else {
        cr_assert_eq(status, MEMTX_E_UNSUPPORTED);
        cr_assert_null(operations);
        cr_assert(strstr(memtx_last_error(), "without FAISS"), "%s", memtx_last_error());
    }
}

Test(indexes, the_version_fits_where_it_is_asked_into)
{
    char all[64], some[4] = "xyz";
    memtx_index_faiss_version(all, sizeof all);
    memtx_index_faiss_version(some, sizeof some);
    cr_assert_eq(strncmp(some, all, 3), 0);
    cr_assert(!has_faiss() || (strchr(all, '(') && all[strlen(all) - 1] == ')'), "%s", all);
}

Test(status, an_error_text_from_outside)
{
    cr_assert_eq(memtx_fail(MEMTX_E_CORRUPT, "%s at %d\nmore", "here", 7), MEMTX_E_CORRUPT);
    cr_assert_str_eq(memtx_last_error(), "here at 7 more");
    cr_assert_eq(memtx_fail(MEMTX_E_IO, "%s again", memtx_last_error()), MEMTX_E_IO);
    cr_assert_str_eq(memtx_last_error(), "here at 7 more again");
}
