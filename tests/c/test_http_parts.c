/* test_http_parts.c - what the readers are made of: names, scans, percent signs. */
#include "np_test.h"

#include "http/np_field.h"
#include "http/np_http.h"
#include "http/np_scan.h"

static void every_name_is_found_by_its_number(void **state)
{
    (void)state;
    for (uint8_t id = 1; id < NP_FIELDS_COUNT; id++) {
        char name[NP_FIELD_NAME_MAX_BYTES + 1] = "";
        size_t bytes = strlen(np_http_field_name(id));
        memcpy(name, np_http_field_name(id), bytes);
        assert_int_equal(np_http_field_id((uint8_t *)name, bytes), id);
        for (size_t i = 0; i < bytes; i++) {
            char kept = name[i];
            for (int c = 0x21; c < 0x7f; c++) { /* any other byte makes another name */
                name[i] = (char)c;
                int is_same = (c | 0x20) == kept && (c == kept || (c >= 'A' && c <= 'Z'));
                assert_true((np_http_field_id((uint8_t *)name, bytes) == id) == is_same);
            }
            name[i] = kept;
        }
        assert_int_not_equal(np_http_field_id((uint8_t *)name, bytes - 1), id);
    }
    for (uint8_t id = 1; id < NP_HTTP_METHODS_COUNT; id++) {
        const char *name = np_http_method_name(id);
        assert_int_equal(np_http_method((const uint8_t *)name, strlen(name)), id);
        assert_int_equal(np_http_method((const uint8_t *)name, strlen(name) - 1), NP_HTTP_OTHER);
    }
    assert_int_equal(np_http_method((const uint8_t *)"get", 3), NP_HTTP_OTHER);
}

static void scans_stop_where_they_should(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 40; size++) {
        struct np_guarded memory = np_guarded_open(size);
        const uint8_t *base = memory.base, *end = base + size;
        for (size_t at = 0; at < size; at++)
            for (int c = 0; c < 256; c++) {
                int hidden = c <= 0x20 || c >= 0x7f;
                int control = (c < 0x20 && c != '\t') || c == 0x7f;
                int mark = c == '#' || c == '?' || c == '%';
                memset(memory.base, 'a', size);
                memory.base[at] = (uint8_t)c;
                assert_ptr_equal(np_scan_value(base, end), control ? base + at : end);
                assert_ptr_equal(np_scan_visible(base, end, ':'),
                                 hidden || c == ':' ? base + at : end);
                assert_ptr_equal(np_scan_path(base, end), hidden || mark ? base + at : end);
            }
        np_guarded_close(&memory);
    }
}

static void percent_signs_are_decoded(void **state)
{
    static const struct {
        const char *path, *decoded;
        size_t bytes;
        int is_ascii;
    } samples[] = {
        {"", "", 0, 1},
        {"/a", "/a", 2, 1},
        {"/%41%62", "/Ab", 3, 1},
        {"%", "%", 1, 1},
        {"%4", "%4", 2, 1},
        {"%zz%4g", "%zz%4g", 6, 1},
        {"%c3%A9", "\xc3\xa9", 2, 0},
        {"%00a", "\0a", 2, 1},
        {"%2541", "%41", 3, 1},
        {"a+b", "a+b", 3, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        uint8_t target[16];
        int is_ascii;
        size_t bytes = np_field_unquote((const uint8_t *)samples[i].path, strlen(samples[i].path),
                                        target, &is_ascii);
        assert_int_equal(bytes, samples[i].bytes);
        assert_memory_equal(target, samples[i].decoded, bytes);
        assert_int_equal(is_ascii, samples[i].is_ascii);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_found_by_its_number),
        cmocka_unit_test(scans_stop_where_they_should),
        cmocka_unit_test(percent_signs_are_decoded),
    };
    return NP_TEST_MAIN("test_http_parts", tests);
}
