/* fuzz_pool.c - memory to send from beside a list of the blocks that are in use.
 *
 * An input is a pool's classes and a list of steps. Each block is filled with a stamp of its own,
 * which has to stand there until the block goes back: no two of them lie on each other. A block is
 * refused only when no chunk is free and none of its class has room.
 */
#include "np_fuzz.h"

#include "mem/np_pool.h"

enum { CHUNK_BYTES = 1024, CHUNKS_COUNT = 6, BLOCKS_MAX_COUNT = CHUNKS_COUNT * CHUNK_BYTES / 64 };

struct block {
    np_block handle;
    uint32_t class_index;
    uint8_t stamp;
};

struct model {
    struct np_pool pool;
    uint32_t classes[5], classes_count;
    struct block blocks[BLOCKS_MAX_COUNT];
    uint32_t count;
    uint64_t taken[5], refused[5];
    uint8_t next_stamp;
};

static size_t chunk_of(struct model *model, const struct block *block)
{
    return (size_t)(np_pool_base(&model->pool, block->handle) - model->pool.arena.base) /
           CHUNK_BYTES;
}

/* What each chunk is used for: its class + 1, or 0, and how many blocks are in use there. */
static void look_at_chunks(struct model *model, uint32_t *classes, uint32_t *counts)
{
    memset(classes, 0, CHUNKS_COUNT * sizeof(*classes));
    memset(counts, 0, CHUNKS_COUNT * sizeof(*counts));
    for (uint32_t i = 0; i < model->count; i++) {
        size_t chunk = chunk_of(model, &model->blocks[i]);
        uint32_t class = model->blocks[i].class_index + 1;
        NP_ASSERT(chunk < CHUNKS_COUNT && (classes[chunk] == 0 || classes[chunk] == class));
        classes[chunk] = class;
        counts[chunk]++;
    }
}

static int has_room(struct model *model, uint32_t class_index)
{
    uint32_t classes[CHUNKS_COUNT], counts[CHUNKS_COUNT];
    look_at_chunks(model, classes, counts);
    for (int i = 0; i < CHUNKS_COUNT; i++)
        if (classes[i] == 0 || (classes[i] == class_index + 1 &&
                                counts[i] < CHUNK_BYTES / model->classes[class_index]))
            return 1;
    return 0;
}

static void take(struct model *model, size_t bytes)
{
    np_block handle = 0;
    uint32_t class = 0;
    while (class < model->classes_count && model->classes[class] < bytes)
        class++;
    if (class == model->classes_count) {
        NP_ASSERT(np_pool_take(&model->pool, bytes, &handle) == -EMSGSIZE);
        return;
    }
    int wanted = has_room(model, class) ? 0 : -ENOBUFS;
    NP_ASSERT(np_pool_take(&model->pool, bytes, &handle) == wanted);
    if (wanted) {
        model->refused[class]++;
        return;
    }
    uint8_t *base = np_pool_base(&model->pool, handle);
    NP_ASSERT(handle != 0 && (size_t)(base - model->pool.arena.base) % model->classes[class] == 0);
    model->taken[class]++;
    model->next_stamp += 3;
    memset(base, model->next_stamp, model->classes[class]);
    model->blocks[model->count++] = (struct block){handle, class, model->next_stamp};
}

static void drop(struct model *model, uint32_t i)
{
    np_pool_drop(&model->pool, model->blocks[i].handle);
    model->blocks[i] = model->blocks[--model->count];
}

static void check(struct model *model)
{
    struct np_pool_stats stats;
    uint32_t classes[CHUNKS_COUNT], counts[CHUNKS_COUNT], used[5] = {0}, free_chunks = 0;
    for (uint32_t i = 0; i < model->count; i++) {
        const struct block *block = &model->blocks[i];
        const uint8_t *base = np_pool_base(&model->pool, block->handle);
        for (uint32_t j = 0; j < model->classes[block->class_index]; j++)
            NP_ASSERT(base[j] == block->stamp);
        used[block->class_index]++;
    }
    look_at_chunks(model, classes, counts);
    for (int i = 0; i < CHUNKS_COUNT; i++)
        free_chunks += classes[i] == 0;
    np_pool_get_stats(&model->pool, &stats);
    NP_ASSERT(stats.blocks_used_count == model->count);
    NP_ASSERT(stats.free_chunk_bytes == free_chunks * CHUNK_BYTES);
    NP_ASSERT(stats.size_bytes == CHUNKS_COUNT * CHUNK_BYTES);
    for (uint32_t i = 0; i < model->classes_count; i++) {
        NP_ASSERT(stats.classes[i].used_count == used[i]);
        NP_ASSERT(stats.classes[i].taken_count == model->taken[i]);
        NP_ASSERT(stats.classes[i].refused_count == model->refused[i]);
    }
}

/* Any classes: they ascend and are powers of two within the bounds, or the pool says no. */
static void open_strange(struct np_fuzz *fuzz)
{
    uint32_t classes[4] = {0}, count = np_fuzz_below(fuzz, 5);
    int is_good = count > 0;
    size_t size = np_fuzz_number(fuzz, 2);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t shift = np_fuzz_below(fuzz, 20);
        classes[i] = (1u << shift) + (np_fuzz_byte(fuzz) == 7);
        is_good &= shift >= 6 && (classes[i] & (classes[i] - 1)) == 0 &&
                   (i == 0 || classes[i] > classes[i - 1]);
    }
    struct np_pool pool;
    int result = np_pool_open(&pool, size, classes, count, NP_ARENA_PLAIN_ONLY);
    NP_ASSERT(result == (is_good && size ? 0 : -EINVAL));
    if (result == 0)
        NP_ASSERT(pool.size_bytes >= size && pool.size_bytes < size + classes[count - 1]);
    np_pool_close(&pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 1500 ? bytes : 1500);
    memset(&model, 0, sizeof(model));
    uint32_t which = np_fuzz_byte(&fuzz); /* sizes below the largest one: 64 to 512 */
    if (which & 128)
        open_strange(&fuzz);
    for (int i = 0; i < 4; i++)
        if (which & 1u << i)
            model.classes[model.classes_count++] = 64u << i;
    model.classes[model.classes_count++] = CHUNK_BYTES;
    NP_ASSERT(np_pool_open(&model.pool, CHUNKS_COUNT * CHUNK_BYTES - which, model.classes,
                           model.classes_count, NP_ARENA_PLAIN_ONLY) == 0);
    while (np_fuzz_left(&fuzz)) {
        uint32_t what = np_fuzz_byte(&fuzz);
        if (what & 1)
            take(&model, 1 + np_fuzz_number(&fuzz, 2) % (CHUNK_BYTES + 8));
        else if (model.count)
            drop(&model, what / 2 * 7 % model.count);
        check(&model);
    }
    while (model.count)
        drop(&model, model.count - 1);
    check(&model);
    np_pool_close(&model.pool);
    return 0;
}
