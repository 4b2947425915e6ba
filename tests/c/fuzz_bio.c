/* fuzz_bio.c - the two ends of a TLS session beside two plain logs of bytes.
 *
 * An input is a list of steps: memory is lent and taken back, bytes are taken and put, the spill is
 * dropped, memory runs out. What was taken has to be what was lent, in order; what is in the lent
 * memory and in the spill has to be what was put since either was empty.
 */
#include "np_fuzz.h"

#include "base/np_limits.h"
#include "tls/np_bio.h"

enum { PART_MAX_BYTES = 3 * NP_BIO_SPILL_MIN_BYTES, LOG_MAX_BYTES = 1 << 20 };

struct session {
    struct np_bio bio;
    struct np_fuzz *fuzz;
    uint8_t *lent_in, *lent_out;
    size_t in_bytes, in_taken_bytes, out_cap_bytes;
    uint8_t put[LOG_MAX_BYTES]; /* into lent_out, then into the spill */
    size_t out_bytes, spill_bytes;
    uint8_t next; /* the stream of bytes that is put and lent */
};

static size_t some_bytes(struct session *session)
{
    return np_fuzz_number(session->fuzz, 2) % PART_MAX_BYTES;
}

static uint8_t *new_bytes(struct session *session, size_t count)
{
    uint8_t *bytes = malloc(count ? count : 1);
    NP_ASSERT(bytes != NULL);
    for (size_t i = 0; i < count; i++)
        bytes[i] = session->next++;
    return bytes;
}

static void lend_in(struct session *session)
{
    size_t bytes = some_bytes(session);
    uint8_t *lent = new_bytes(session, bytes);
    np_bio_lend_in(&session->bio, lent, bytes);
    free(session->lent_in);
    session->lent_in = lent;
    session->in_bytes = bytes;
    session->in_taken_bytes = 0;
}

static void end_in(struct session *session)
{
    np_bio_lend_in(&session->bio, NULL, some_bytes(session));
    free(session->lent_in);
    session->lent_in = NULL;
    session->in_bytes = session->in_taken_bytes = 0;
}

static void take(struct session *session)
{
    size_t max = some_bytes(session), left = session->in_bytes - session->in_taken_bytes;
    uint8_t *to = malloc(max ? max : 1);
    NP_ASSERT(to != NULL);
    size_t got = np_bio_take(&session->bio, to, max);
    NP_ASSERT(got == (max < left ? max : left));
    if (got)
        NP_ASSERT(memcmp(to, session->lent_in + session->in_taken_bytes, got) == 0);
    session->in_taken_bytes += got;
    free(to);
}

static void lend_out(struct session *session)
{
    size_t cap = some_bytes(session);
    if (session->spill_bytes)
        return; /* np_bio.h: the spill is dropped first */
    uint8_t *lent = malloc(cap ? cap : 1);
    NP_ASSERT(lent != NULL);
    np_bio_lend_out(&session->bio, lent, cap);
    free(session->lent_out);
    session->lent_out = lent;
    session->out_cap_bytes = cap;
    session->out_bytes = 0;
}

static void end_out(struct session *session)
{
    np_bio_lend_out(&session->bio, NULL, some_bytes(session));
    free(session->lent_out);
    session->lent_out = NULL;
    /* What is in the spill is now the first of the log. */
    memmove(session->put, session->put + session->out_bytes, session->spill_bytes);
    session->out_bytes = session->out_cap_bytes = 0;
}

static void put(struct session *session, int without_memory)
{
    size_t bytes = some_bytes(session), before = session->out_bytes + session->spill_bytes;
    size_t room = session->spill_bytes ? 0 : session->out_cap_bytes - session->out_bytes;
    if (before + bytes > LOG_MAX_BYTES)
        return;
    uint8_t *data = new_bytes(session, bytes);
    size_t cap_bytes = session->bio.spill_cap_bytes;
    np_fail_allocations(without_memory);
    int result = np_bio_put(&session->bio, data, bytes);
    np_fail_allocations(0);
    if (result == 0) {
        memcpy(session->put + before, data, bytes);
        size_t direct = bytes < room ? bytes : room;
        session->out_bytes += direct;
        session->spill_bytes += bytes - direct;
    } else {
        size_t needed = session->spill_bytes + bytes - (bytes < room ? bytes : room);
        NP_ASSERT(result == -ENOMEM && without_memory && needed > cap_bytes);
    }
    free(data);
}

static void check(const struct session *session)
{
    const struct np_bio *bio = &session->bio;
    NP_ASSERT(bio->in_bytes == session->in_bytes - session->in_taken_bytes);
    NP_ASSERT(bio->out_bytes == session->out_bytes);
    NP_ASSERT(bio->spill_bytes == session->spill_bytes);
    NP_ASSERT(bio->spill_cap_bytes >= bio->spill_bytes);
    NP_ASSERT(bio->spill_cap_bytes < 4 * NP_BIO_SPILL_MIN_BYTES ||
              bio->spill_cap_bytes <= 2 * LOG_MAX_BYTES);
    NP_ASSERT(np_fuzz_is_same(session->lent_out, session->put, session->out_bytes));
    NP_ASSERT(np_fuzz_is_same(bio->spill, session->put + session->out_bytes, session->spill_bytes));
}

static void drop_spill(struct session *session)
{
    np_bio_drop_spill(&session->bio);
    session->spill_bytes = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct session session;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes);
    memset(&session, 0, offsetof(struct session, put));
    session.out_bytes = session.spill_bytes = session.next = 0;
    session.fuzz = &fuzz;
    while (np_fuzz_left(&fuzz)) {
        switch (np_fuzz_below(&fuzz, 9)) {
        case 0:
            lend_in(&session);
            break;
        case 1:
            end_in(&session);
            break;
        case 2:
        case 3:
            take(&session);
            break;
        case 4:
            lend_out(&session);
            break;
        case 5:
            end_out(&session);
            break;
        case 6:
            drop_spill(&session);
            break;
        default:
            put(&session, np_fuzz_below(&fuzz, 4) == 3);
        }
        check(&session);
    }
    np_bio_drop_spill(&session.bio);
    free(session.lent_in);
    free(session.lent_out);
    return 0;
}
