/* test_op.c - the op slab and the cookie it is named by. */
#include "np_test.h"

#include "io/np_op.h"

static int owners[4];

static void udata_packs_and_unpacks(void **state)
{
    (void)state;
    static const struct {
        uint8_t kind;
        uint32_t slot, generation;
    } cases[] = {
        {NP_OP_ACCEPT, 0, 1},
        {NP_OP_POLL, NP_OP_MAX_SLOTS - 1, UINT32_MAX},
        {NP_OP_RECV, 0x00A5A5A5, 0x5A5A5A5A},
        {0xEF, 1, 0x80000000},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        np_udata u = np_udata_pack(cases[i].kind, cases[i].slot, cases[i].generation);
        assert_int_equal(np_udata_kind(u), cases[i].kind);
        assert_int_equal(np_udata_slot(u), cases[i].slot);
        assert_int_equal(np_udata_generation(u), cases[i].generation);
        assert_true(u != NP_UDATA_NONE);
    }
}

static void alloc_fills_the_slot(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    struct np_op *op = np_op_alloc(&slab, NP_OP_RECV, 7, &owners[0]);
    assert_non_null(op);
    assert_int_equal((uintptr_t)op % 64, 0);
    assert_int_equal(op->kind, NP_OP_RECV);
    assert_int_equal(op->state, NP_QUEUED);
    assert_int_equal(op->fd, 7);
    assert_ptr_equal(op->owner, &owners[0]);
    assert_int_equal(slab.live_count, 1);
    assert_ptr_equal(np_op_find(&slab, np_op_udata(op)), op);

    np_op_free(&slab, op);
    assert_int_equal(slab.live_count, 0);
    np_op_slab_close(&slab, 0);
}

static void a_reused_slot_starts_clean(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    struct np_op *op = np_op_alloc(&slab, NP_OP_SEND, 3, &owners[0]);
    uint32_t slot = op->slot;
    op->buf = owners;
    op->len_bytes = 99;
    op->iov_count = 5;
    op->poll_mask = 1;
    np_op_mark_kernel(op);
    np_op_free(&slab, op);

    struct np_op *again = np_op_alloc(&slab, NP_OP_POLL, 4, &owners[1]);
    assert_ptr_equal(again, op);
    assert_int_equal(again->slot, slot);
    assert_null(again->buf);
    assert_int_equal(again->len_bytes, 0);
    assert_int_equal(again->iov_count, 0);
    assert_int_equal(again->poll_mask, 0);
    assert_int_equal(again->state, NP_QUEUED);
    assert_ptr_equal(again->owner, &owners[1]);
    np_op_free(&slab, again);
    np_op_slab_close(&slab, 0);
}

static void stale_cookies_find_nothing(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    struct np_op *op = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    np_udata first_life = np_op_udata(op);
    np_op_free(&slab, op);
    assert_null(np_op_find(&slab, first_life));
    /* The cookie of the life to come does not find the slot while it is still free. */
    assert_null(np_op_find(&slab, np_op_udata(op)));

    struct np_op *again = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    assert_ptr_equal(again, op);
    assert_null(np_op_find(&slab, first_life));
    np_udata second_life = np_op_udata(again);
    assert_true(second_life != first_life);
    assert_ptr_equal(np_op_find(&slab, second_life), again);
    np_op_free(&slab, again);
    np_op_slab_close(&slab, 0);
}

static void foreign_cookies_find_nothing(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    assert_null(np_op_find(&slab, np_udata_pack(NP_OP_RECV, 0, 1))); /* no chunk yet */
    struct np_op *op = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    assert_null(np_op_find(&slab, NP_UDATA_NONE));
    assert_null(np_op_find(&slab, NP_UDATA_CANCEL));
    assert_null(np_op_find(&slab, NP_UDATA_WAKE));
    assert_null(np_op_find(&slab, np_udata_pack(NP_OP_SEND, op->slot, op->generation)));
    assert_null(np_op_find(&slab, np_udata_pack(NP_OP_RECV, op->slot, op->generation + 1)));
    assert_null(np_op_find(&slab, np_udata_pack(NP_OP_RECV, NP_OP_CHUNK_SLOTS, 1)));
    assert_null(np_op_find(&slab, np_udata_pack(NP_OP_RECV, NP_OP_MAX_SLOTS - 1, 1)));
    np_op_free(&slab, op);
    np_op_slab_close(&slab, 0);
}

static void generation_wraps_past_zero(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    struct np_op *op = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    op->generation = UINT32_MAX;
    np_udata last = np_op_udata(op);
    assert_ptr_equal(np_op_find(&slab, last), op);
    np_op_free(&slab, op);

    struct np_op *again = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    assert_ptr_equal(again, op);
    assert_int_equal(again->generation, 1);
    assert_null(np_op_find(&slab, last));
    np_op_free(&slab, again);
    np_op_slab_close(&slab, 0);
}

static void chunks_grow_and_never_move(void **state)
{
    (void)state;
    enum { OPS = NP_OP_CHUNK_SLOTS * 9 + 1 }; /* the table of chunks grows twice as well */
    static struct np_op *ops[OPS];
    static np_udata cookies[OPS];
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    for (int i = 0; i < OPS; i++) {
        ops[i] = np_op_alloc(&slab, NP_OP_POLL, i, &ops[i]);
        assert_non_null(ops[i]);
        assert_int_equal(ops[i]->slot, i); /* low numbers first: few chunks stay warm */
        cookies[i] = np_op_udata(ops[i]);
    }
    assert_int_equal(slab.chunks_count, 10);
    assert_int_equal(slab.live_count, OPS);
    for (int i = 0; i < OPS; i++) {
        assert_ptr_equal(np_op_find(&slab, cookies[i]), ops[i]);
        assert_int_equal(ops[i]->fd, i);
        assert_ptr_equal(ops[i]->owner, &ops[i]);
    }
    for (int i = 0; i < OPS; i++)
        np_op_free(&slab, ops[i]);
    assert_int_equal(slab.live_count, 0);
    np_op_slab_close(&slab, 0);
}

static void random_lives_against_a_model(void **state)
{
    (void)state;
    enum { SLOTS = 700, STEPS = 60000 };
    static np_udata model[SLOTS], dead[SLOTS];
    struct np_random random = np_random_seeded(11);
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    memset(model, 0, sizeof(model));
    uint32_t live = 0;
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = np_random_below(&random, SLOTS);
        if (model[i]) {
            struct np_op *op = np_op_find(&slab, model[i]);
            assert_non_null(op);
            assert_ptr_equal(op->owner, &model[i]);
            np_op_free(&slab, op);
            dead[i] = model[i];
            model[i] = NP_UDATA_NONE;
            live--;
        } else {
            uint8_t kind = (uint8_t)(1 + np_random_below(&random, NP_OP_KINDS - 1));
            struct np_op *op = np_op_alloc(&slab, kind, (int)i, &model[i]);
            assert_non_null(op);
            model[i] = np_op_udata(op);
            live++;
        }
        assert_int_equal(slab.live_count, live);
        assert_null(np_op_find(&slab, dead[np_random_below(&random, SLOTS)]));
    }
    assert_true(slab.chunks_count <= SLOTS / NP_OP_CHUNK_SLOTS + 1); /* freed slots are reused */
    for (int i = 0; i < SLOTS; i++)
        if (model[i])
            np_op_free(&slab, np_op_find(&slab, model[i]));
    np_op_slab_close(&slab, 0);
}

static void out_of_memory_leaves_the_slab_whole(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    np_fail_allocations(1); /* the table of chunks */
    assert_null(np_op_alloc(&slab, NP_OP_RECV, 3, NULL));
    assert_null(slab.chunks);
    slab.chunks = calloc(1, sizeof(struct np_op *));
    slab.chunks_cap = 1;
    np_fail_allocations(1); /* the chunk */
    assert_null(np_op_alloc(&slab, NP_OP_RECV, 3, NULL));
    assert_int_equal(slab.live_count, 0);
    assert_int_equal(slab.chunks_count, 0);

    struct np_op *ops[NP_OP_CHUNK_SLOTS + 1];
    for (int i = 0; i < NP_OP_CHUNK_SLOTS; i++)
        ops[i] = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    np_fail_allocations(1);
    assert_null(np_op_alloc(&slab, NP_OP_RECV, 3, NULL));
    assert_int_equal(slab.live_count, NP_OP_CHUNK_SLOTS);
    ops[NP_OP_CHUNK_SLOTS] = np_op_alloc(&slab, NP_OP_RECV, 3, NULL);
    for (int i = 0; i <= NP_OP_CHUNK_SLOTS; i++)
        np_op_free(&slab, ops[i]);
    np_op_slab_close(&slab, 0);
}

static void slot_numbers_run_out(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    slab.chunks_count = NP_OP_MAX_SLOTS / NP_OP_CHUNK_SLOTS; /* as if all were in use */
    assert_null(np_op_alloc(&slab, NP_OP_RECV, 3, NULL));
    slab.chunks_count = 0;
    np_op_slab_close(&slab, 0);
}

static void close_with_one_alive(void *arg)
{
    np_op_slab_close(arg, 0);
}

static void free_twice(void *arg)
{
    struct np_op *op = np_op_alloc(arg, NP_OP_RECV, 3, NULL);
    np_op_free(arg, op);
    np_op_free(arg, op);
}

static void mark_kernel(void *op)
{
    np_op_mark_kernel(op);
}
static void mark_queued(void *op)
{
    np_op_mark_queued(op);
}
static void mark_sent(void *op)
{
    np_op_mark_sent(op);
}
static void mark_orphan(void *op)
{
    np_op_mark_orphan(op);
}

static void states_follow_the_drawing(void **state)
{
    (void)state;
    static void (*const marks[])(void *) = {mark_kernel, mark_queued, mark_sent, mark_orphan};
    /* A digit for each of the marks above: whether it may follow on the state. */
    static const char *const allowed[] = {
        [NP_FREE] = "0000", [NP_QUEUED] = "1001", [NP_KERNEL] = "0111",
        [NP_SENT] = "0000", [NP_ORPHAN] = "0011",
    };
    static const uint8_t states[] = {NP_KERNEL, NP_QUEUED, NP_SENT, NP_ORPHAN};
    for (uint8_t from = NP_FREE; from <= NP_ORPHAN; from++) {
        for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
            struct np_op op = {.state = from};
            assert_int_equal(np_aborts(marks[i], &op), allowed[from][i] == '0');
            if (allowed[from][i] == '0')
                continue;
            marks[i](&op);
            assert_int_equal(op.state, states[i]);
        }
    }
}

static void broken_rules_abort(void **state)
{
    (void)state;
    struct np_op_slab slab;
    np_op_slab_init(&slab);
    assert_non_null(np_op_alloc(&slab, NP_OP_RECV, 3, NULL));
    assert_true(np_aborts(close_with_one_alive, &slab));
    assert_true(np_aborts(free_twice, &slab));
    np_op_slab_close(&slab, 1); /* forced: no questions */
    assert_int_equal(slab.live_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(udata_packs_and_unpacks),
        cmocka_unit_test(alloc_fills_the_slot),
        cmocka_unit_test(a_reused_slot_starts_clean),
        cmocka_unit_test(stale_cookies_find_nothing),
        cmocka_unit_test(foreign_cookies_find_nothing),
        cmocka_unit_test(generation_wraps_past_zero),
        cmocka_unit_test(chunks_grow_and_never_move),
        cmocka_unit_test(random_lives_against_a_model),
        cmocka_unit_test(out_of_memory_leaves_the_slab_whole),
        cmocka_unit_test(slot_numbers_run_out),
        cmocka_unit_test(states_follow_the_drawing),
        cmocka_unit_test(broken_rules_abort),
    };
    return NP_TEST_MAIN("test_op", tests);
}
