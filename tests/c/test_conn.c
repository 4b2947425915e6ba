/* test_conn.c - held receive buffers, connections and flows: who lets go of what, and when. */
#include "np_test.h"

#include "mem/np_bufring.h"
#include "server/np_conn.h"

enum { BUF_BYTES = 4096, MANY = 3 * NP_CONN_CHUNK_COUNT };

/* `len_bytes` of the letter `what`, as if received into buffer `bid`. */
static uint8_t *receive(struct np_bufring *br, uint16_t bid, uint32_t len_bytes, int more, int what)
{
    uint8_t *data = np_bufring_consume(br, bid, len_bytes, more);
    memset(data, what, len_bytes);
    return data;
}

static void push_held(struct np_flow *flow, struct np_buf *buf, uint8_t *data, size_t len_bytes)
{
    np_buf_hold(buf);
    assert_int_equal(np_flow_push(flow, (uint8_t *)buf + NP_OWNER_BUF, data, len_bytes), 0);
}

static void empty(struct np_flow *flow)
{
    while (flow->iov.count)
        assert_null(np_owner_drop(np_iov_pop(&flow->iov)));
}

static void held_buffers_are_not_published(void **state)
{
    (void)state;
    struct np_bufring br;
    assert_int_equal(np_bufring_open(&br, 2, BUF_BYTES), 0);
    uint8_t *first = receive(&br, 0, 100, 0, 'a');
    receive(&br, 1, 100, 0, 'b');
    struct np_buf *buf = np_bufring_buf(&br, 0);
    np_buf_hold(buf);
    np_buf_hold(buf);
    assert_false(np_bufring_has_room(&br));
    assert_int_equal(np_bufring_recycle(&br), 1);
    assert_int_equal(br.retired_count, 1);
    np_buf_release(buf);
    assert_int_equal(np_bufring_recycle(&br), 0);
    assert_int_equal(first[99], 'a');
    np_buf_release(buf);
    assert_int_equal(np_bufring_recycle(&br), 1);
    assert_int_equal(br.retired_count, 0);
    np_bufring_close(&br);
}

static void a_hold_outlives_the_ring(void **state)
{
    (void)state;
    struct np_bufring br;
    assert_int_equal(np_bufring_open(&br, 1, BUF_BYTES), 0);
    uint8_t *data = receive(&br, 0, 10, 1, 'x');
    struct np_buf *buf = np_bufring_buf(&br, 0);
    np_buf_hold(buf);
    np_bufring_close(&br);
    assert_int_equal(data[9], 'x');
    np_buf_release(buf); /* the leak checker sees to the rest */
}

static void without_a_kernel_buffers_are_taken_in_order(void **state)
{
    (void)state;
    struct np_bufring br;
    uint32_t room_bytes;
    assert_int_equal(np_bufring_open(&br, 2, BUF_BYTES), 0);
    int bid = np_bufring_peek(&br, 1000, &room_bytes);
    assert_int_equal(room_bytes, BUF_BYTES);
    np_bufring_at(&br, (uint16_t)bid);
    receive(&br, (uint16_t)bid, 3500, 1, 'a');
    np_bufring_rewind(&br); /* nobody holds it: it starts over */
    assert_int_equal(np_bufring_peek(&br, 1000, &room_bytes), bid);
    assert_int_equal(room_bytes, BUF_BYTES);
    uint8_t *data = receive(&br, (uint16_t)bid, 3500, 1, 'a');
    np_buf_hold(np_bufring_buf(&br, (uint16_t)bid));
    np_bufring_rewind(&br);
    int other = np_bufring_peek(&br, 1000, &room_bytes); /* too little room: retired */
    assert_int_not_equal(other, bid);
    receive(&br, (uint16_t)other, BUF_BYTES, 0, 'b');
    assert_int_equal(np_bufring_peek(&br, 1000, &room_bytes), -1);
    assert_int_equal(np_bufring_recycle(&br), 1);
    assert_int_equal(np_bufring_peek(&br, 1000, &room_bytes), other);
    assert_int_equal(data[3499], 'a');
    np_buf_release(np_bufring_buf(&br, (uint16_t)bid));
    np_bufring_close(&br);
}

static void connections_come_from_a_slab(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    static struct np_conn *conns[MANY];
    int worker = 0;
    np_conn_slab_init(&slab);
    for (int i = 0; i < MANY; i++) {
        conns[i] = np_conn_get(&slab, &worker, 100 + i);
        assert_non_null(conns[i]);
        void *cookie = np_conn_cookie(conns[i]);
        assert_ptr_equal(np_conn_of(cookie), conns[i]);
        assert_ptr_equal(*(void **)((uint8_t *)cookie - NP_COOKIE_STRUCT), &worker);
        assert_ptr_equal(np_conn_at(&slab, conns[i]->index), conns[i]);
    }
    uint32_t serial = conns[7]->serial;
    conns[7]->fd = -1;
    np_conn_put(&slab, conns[7]);
    assert_ptr_equal(np_conn_get(&slab, &worker, 5), conns[7]);
    assert_int_not_equal(conns[7]->serial, serial);
    for (int i = 0; i < MANY; i++) {
        conns[i]->fd = -1;
        np_conn_put(&slab, conns[i]);
    }
    np_fail_allocations(1);
    assert_non_null(np_conn_get(&slab, &worker, 1)); /* nothing to allocate */
    np_fail_allocations(0);
    np_conn_slab_close(&slab, 1);
}

static void a_flow_moves_without_copying(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    struct np_bufring br;
    np_conn_slab_init(&slab);
    assert_int_equal(np_bufring_open(&br, 1, BUF_BYTES), 0);
    struct np_flow *from = np_flow_get(&slab), *to = np_flow_get(&slab);
    uint8_t *data = receive(&br, 0, 100, 1, 'a');
    push_held(from, np_bufring_buf(&br, 0), data, 100);
    assert_int_equal(np_flow_move(from, to, 30), 0);
    assert_int_equal(np_flow_move(from, to, 70), 0);
    assert_int_equal(from->iov.total_bytes, 0);
    struct iovec iov[4];
    size_t total_bytes;
    assert_int_equal(np_flow_gather(to, iov, 4, &total_bytes), 2);
    assert_int_equal(total_bytes, 100);
    assert_ptr_equal(iov[0].iov_base, data);
    assert_ptr_equal(iov[1].iov_base, data + 30);
    empty(to);
    np_flow_put(&slab, from);
    np_flow_put(&slab, to);
    np_conn_slab_close(&slab, 0);
    np_bufring_close(&br);
}

static void a_piece_goes_before_the_others(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    struct iovec iov[16];
    size_t total_bytes;
    static const char text[] = "0123456789";
    np_conn_slab_init(&slab);
    struct np_flow *flow = np_flow_get(&slab);
    assert_int_equal(np_flow_push_front(flow, NULL, text, 10), 0);
    np_iov_advance(&flow->iov, 4, NULL, 0);
    for (int i = 0; i < 9; i++) /* grows with a piece that is cut */
        assert_int_equal(np_flow_push_front(flow, NULL, text + i, 1), 0);
    assert_int_equal(flow->iov.total_bytes, 15);
    assert_int_equal(np_flow_gather(flow, iov, 16, &total_bytes), 10);
    assert_int_equal(total_bytes, 15);
    assert_ptr_equal(iov[0].iov_base, text + 8);
    assert_ptr_equal(iov[8].iov_base, text);
    assert_ptr_equal(iov[9].iov_base, text + 4);
    empty(flow);
    np_flow_put(&slab, flow);
    np_conn_slab_close(&slab, 0);
}

static void shedding_gives_the_buffer_back(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    struct np_bufring br;
    np_conn_slab_init(&slab);
    assert_int_equal(np_bufring_open(&br, 1, BUF_BYTES), 0);
    struct np_flow *flow = np_flow_get(&slab);
    push_held(flow, np_bufring_buf(&br, 0), receive(&br, 0, 100, 1, 'a'), 100);
    push_held(flow, np_bufring_buf(&br, 0), receive(&br, 0, 50, 0, 'b'), 50);
    np_iov_advance(&flow->iov, 40, NULL, 0);
    flow->sending = 1; /* the kernel reads the first one */
    assert_int_equal(np_flow_shed(flow), 50);
    assert_int_equal(np_bufring_recycle(&br), 0);
    flow->sending = 0;
    np_fail_allocations(1);
    assert_int_equal(np_flow_shed(flow), -ENOMEM);
    np_fail_allocations(0);
    assert_int_equal(np_flow_shed(flow), 60);
    assert_int_equal(np_bufring_recycle(&br), 1);
    struct iovec iov[4];
    size_t total_bytes;
    assert_int_equal(np_flow_gather(flow, iov, 4, &total_bytes), 2);
    assert_int_equal(total_bytes, 110);
    assert_int_equal(((char *)iov[0].iov_base)[59], 'a');
    assert_int_equal(((char *)iov[1].iov_base)[49], 'b');
    empty(flow);
    np_flow_put(&slab, flow);
    np_conn_slab_close(&slab, 0);
    np_bufring_close(&br);
}

/* "bcdef" in three pieces, of which the first is cut. */
static struct np_flow *in_pieces(struct np_conn_slab *slab)
{
    static const char text[] = "abcdef";
    struct np_flow *flow = np_flow_get(slab);
    for (int i = 0; i < 6; i += 2)
        assert_int_equal(np_flow_push(flow, NULL, text + i, 2), 0);
    np_iov_advance(&flow->iov, 1, NULL, 0);
    return flow;
}

static int64_t find(const struct np_flow *flow, const char *wanted, size_t start_bytes)
{
    return np_flow_find(flow, (const uint8_t *)wanted, strlen(wanted), start_bytes);
}

static void bytes_are_found_and_copied_over_pieces(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    char copy[8] = "";
    np_conn_slab_init(&slab);
    struct np_flow *flow = in_pieces(&slab);
    assert_int_equal(find(flow, "b", 0), 1);
    assert_int_equal(find(flow, "cd", 0), 3);
    assert_int_equal(find(flow, "bcdef", 0), 5);
    assert_int_equal(find(flow, "de", 2), 4);
    assert_int_equal(find(flow, "de", 3), -1);
    assert_int_equal(find(flow, "a", 0), -1);
    assert_int_equal(find(flow, "ce", 0), -1);
    assert_int_equal(find(flow, "efg", 0), -1);
    assert_int_equal(find(flow, "", 0), -1);
    np_flow_copy(flow, copy, 4);
    assert_string_equal(copy, "bcde");
    np_flow_copy(flow, copy, 5);
    assert_string_equal(copy, "bcdef");
    empty(flow);
    np_flow_put(&slab, flow);
    np_conn_slab_close(&slab, 0);
}

static void a_part_that_cannot_be_held_is_copied(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    struct iovec iov[4];
    size_t total_bytes;
    np_conn_slab_init(&slab);
    struct np_flow *from = in_pieces(&slab), *to = np_flow_get(&slab);
    const uint8_t *second = from->iov.chunks[1].base;
    np_fail_allocations(1);
    assert_int_equal(np_flow_move(from, to, 2), -ENOMEM); /* no piece can be added */
    np_fail_allocations(0);
    assert_int_equal(from->iov.total_bytes, 5);
    assert_int_equal(np_flow_move(from, to, 2), 0);
    assert_int_equal(from->iov.total_bytes, 3);
    assert_int_equal(np_flow_gather(to, iov, 4, &total_bytes), 2);
    assert_ptr_equal(iov[0].iov_base, second - 1);
    assert_ptr_not_equal(iov[1].iov_base, second);
    assert_memory_equal(iov[1].iov_base, "c", 1);
    np_fail_allocations(1);
    assert_int_equal(np_flow_move(to, from, 1),
                     0); /* there is room for it, and it is a whole one */
    np_fail_allocations(0);
    empty(from);
    empty(to);
    np_flow_put(&slab, from);
    np_flow_put(&slab, to);
    np_conn_slab_close(&slab, 0);
}

/* A peer that sends byte by byte: what is kept of each is the byte. */
static void small_pieces_are_joined(void **state)
{
    (void)state;
    struct np_conn_slab slab;
    np_conn_slab_init(&slab);
    struct np_flow *flow = np_flow_get(&slab), *other = np_flow_get(&slab);
    uint8_t text[3 * NP_FLOW_JOINED_BYTES], copy[sizeof(text)];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < sizeof(text); i++) {
        if (i < NP_FLOW_APART_COUNT) {
            assert_int_equal(np_flow_join(flow, text + i, 1), 0);
            assert_int_equal(np_flow_push(flow, NULL, text + i, 1), 0);
        } else {
            assert_int_equal(np_flow_join(flow, text + i, 1), 1);
        }
    }
    assert_int_equal(flow->iov.count, NP_FLOW_APART_COUNT + 3);
    assert_int_equal(np_flow_join(flow, text, NP_FLOW_JOIN_MAX_BYTES + 1), 0);
    np_flow_copy(flow, copy, sizeof(text));
    assert_memory_equal(copy, text, sizeof(text));

    /* Behind a piece that is somebody's nothing is written. */
    assert_int_equal(np_flow_push(flow, NULL, text, 1), 0);
    uint32_t count = flow->iov.count;
    np_fail_allocations(1);
    assert_int_equal(np_flow_join(flow, text, 1), -ENOMEM);
    np_fail_allocations(0);
    assert_int_equal(np_flow_join(flow, text, 1), 1);
    assert_int_equal(flow->iov.count, count + 1);

    /* Nor behind one that another flow has now. */
    assert_int_equal(np_flow_move(flow, other, flow->iov.total_bytes), 0);
    assert_int_equal(np_flow_join(flow, text, 1), 0);
    assert_int_equal(np_flow_push(other, NULL, text, 1), 0);
    assert_int_equal(np_flow_join(other, text, 1), 1);
    empty(other);
    np_flow_put(&slab, flow);
    np_flow_put(&slab, other);
    np_conn_slab_close(&slab, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_buffers_are_not_published),
        cmocka_unit_test(a_hold_outlives_the_ring),
        cmocka_unit_test(without_a_kernel_buffers_are_taken_in_order),
        cmocka_unit_test(connections_come_from_a_slab),
        cmocka_unit_test(a_flow_moves_without_copying),
        cmocka_unit_test(a_piece_goes_before_the_others),
        cmocka_unit_test(shedding_gives_the_buffer_back),
        cmocka_unit_test(bytes_are_found_and_copied_over_pieces),
        cmocka_unit_test(a_part_that_cannot_be_held_is_copied),
        cmocka_unit_test(small_pieces_are_joined),
    };
    return NP_TEST_MAIN("test_conn", tests);
}
