"""BufferPool and Buffer: what they hold, when they refuse, and that nothing is left."""

import asyncio
import errno
import threading

import pytest

import netpoll

SIZE_BYTES = 1 << 20
CLASSES = (512, 4096, 65536)


@pytest.fixture
def pool():
    with netpoll.BufferPool(SIZE_BYTES, CLASSES, "off") as pool:
        yield pool
    assert pool.stats()["buffers_count"] == 0


def test_a_buffer_is_writable_until_it_is_committed(pool):
    with pool.reserve(1000) as buffer:
        assert (buffer.capacity, len(buffer), buffer.committed) == (1000, 0, False)
        assert buffer.write(b"head") == 4
        with memoryview(buffer) as view:
            assert (len(view), view.readonly) == (1000, False)
            view[4:8] = b"body"
            with pytest.raises(BufferError, match="writable view"):
                buffer.commit(8)
        buffer.commit(8)
        assert bytes(buffer) == b"headbody"
        assert len(buffer) == 8
        assert memoryview(buffer).readonly
        with pytest.raises(BufferError, match="committed"):
            buffer.write(b"more")
        with pytest.raises(BufferError, match="committed"):
            buffer.commit(4)


def test_a_buffer_is_not_released_while_a_view_is_open(pool):
    buffer = pool.reserve(10)
    view = memoryview(buffer)
    with pytest.raises(BufferError, match="1 views"):
        buffer.release()
    view.release()
    buffer.release()
    buffer.release()
    assert buffer.released
    for use in (lambda: bytes(buffer), lambda: buffer.write(b"x"), lambda: buffer.commit(0)):
        with pytest.raises(ValueError, match="released"):
            use()


def test_what_does_not_fit_is_refused(pool):
    with pool.reserve(4) as buffer:
        buffer.write(b"abc")
        with pytest.raises(ValueError, match="2 bytes do not fit"):
            buffer.write(b"de")
        with pytest.raises(ValueError, match="between 0 and 4"):
            buffer.commit(5)
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least one byte"):
            pool.reserve(size)
    with pytest.raises(ValueError, match="largest class of the pool, 65536"):
        pool.reserve(65537)
    with pytest.raises(TypeError, match=r"BufferPool.reserve"):
        netpoll.Buffer()


def test_an_exhausted_pool_is_backpressure(pool):
    held = [pool.reserve(65536) for _ in range(SIZE_BYTES // 65536)]
    with pytest.raises(netpoll.PoolExhaustedError) as caught:
        pool.reserve(1)
    assert caught.value.errno == errno.ENOBUFS
    assert pool.stats()["classes"][512]["refused"] == 1
    held.pop().release()
    pool.reserve(1).release()
    for buffer in held:
        buffer.release()


def test_a_dropped_buffer_goes_back(pool):
    for _ in range(3 * SIZE_BYTES // 65536):
        pool.reserve(65536)
    assert pool.stats()["buffers_count"] == 0


def test_a_pool_in_use_is_not_closed():
    pool = netpoll.BufferPool(SIZE_BYTES, CLASSES, "off")
    buffer = pool.reserve(1)
    with pytest.raises(BufferError, match="1 buffers"):
        pool.close()
    buffer.release()
    pool.close()
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.reserve(1)
    assert pool.stats()["used_bytes"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_bytes": 0},
        {"classes": ()},
        {"classes": (100,)},
        {"classes": (512, 512)},
        {"classes": (4096, 512)},
        {"hugepages": "please"},
    ],
)
def test_what_no_pool_can_be(wrong):
    with pytest.raises(ValueError):
        netpoll.BufferPool(**wrong)
    with pytest.raises(ValueError):
        netpoll.BufferConfig(**wrong)


def test_stats_say_which_pages(pool):
    assert pool.stats()["pages"] == "plain"
    with netpoll.BufferPool(4 << 20) as huge:
        assert huge.stats()["pages"] in ("hugetlb", "thp", "plain")
        assert huge.stats()["size_bytes"] == 4 << 20


async def test_a_ring_knows_the_pool(loop, pool, backend):
    taken = pool.attach()
    assert pool.attach() is taken  # a second time changes nothing
    assert taken is (backend != "epoll")
    stats = pool.stats()
    assert stats["registered"] == int(taken)
    assert loop.stats()["regions_count"] == int(taken)
    assert len(stats["not_registered"]) == int(not taken)
    pool.detach()
    assert pool.stats()["registered"] == 0
    assert loop.stats()["regions_count"] == 0


def test_a_closed_loop_lets_go_of_the_pool(loop_factory, pool):
    loops = [loop_factory(), loop_factory()]
    for loop in loops:
        pool.attach(loop)
    for loop in loops:
        loop.close()
    assert pool.stats()["registered"] == 0


def test_attach_is_for_the_loops_thread(loop, pool, backend):
    loop.run_until_complete(asyncio.sleep(0))
    caught = []

    def attach():
        try:
            pool.attach(loop)
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=attach)
    thread.start()
    thread.join()
    assert ["own thread" in text for text in caught] == ([True] if backend == "uring" else [])
    with pytest.raises(TypeError, match="netpoll loop"):
        pool.attach(asyncio.AbstractEventLoop())


def test_threads_share_a_pool(pool):
    wrong = []

    def work(mark):
        for _ in range(300):
            try:
                buffer = pool.reserve(4096)
            except netpoll.PoolExhaustedError:
                continue
            with buffer:
                buffer.write(mark * 4096)
                if bytes(memoryview(buffer)) != mark * 4096:
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(bytes([i]),)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
