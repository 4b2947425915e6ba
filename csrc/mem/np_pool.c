/* np_pool.c - see np_pool.h.
 *
 * Why chunks and not a fixed share per class: nobody knows in advance which sizes a program sends.
 * Why not a buddy system: splitting and joining are O(log n), and blocks of one size end up side
 * by side here, which is what the processor's address cache likes.
 */
#include "mem/np_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/np_assert.h"

NP_STATIC_ASSERT(NP_POOL_BLOCK_MAX_BYTES <= NP_REGION_MAX_BYTES, "a block lies in one region");
NP_STATIC_ASSERT(NP_POOL_CLASSES_MAX_COUNT < 256, "class_index");

static size_t chunk_bytes(const struct np_pool *pool)
{
    return pool->classes[pool->classes_count - 1].block_bytes;
}

static uint32_t unit_bytes(const struct np_pool *pool)
{
    return pool->classes[0].block_bytes;
}

/* ---- lists of chunks ------------------------------------------------------------------------ */

static void list_push(struct np_pool *pool, uint32_t *list, uint32_t index)
{
    struct np_pool_chunk *chunk = &pool->chunks[index];
    chunk->prev = 0;
    chunk->next = *list;
    if (*list)
        pool->chunks[*list - 1].prev = index + 1;
    *list = index + 1;
}

static void list_remove(struct np_pool *pool, uint32_t *list, uint32_t index)
{
    struct np_pool_chunk *chunk = &pool->chunks[index];
    if (chunk->prev)
        pool->chunks[chunk->prev - 1].next = chunk->next;
    else
        *list = chunk->next;
    if (chunk->next)
        pool->chunks[chunk->next - 1].prev = chunk->prev;
    chunk->next = chunk->prev = 0;
}

/* ---- open, close --------------------------------------------------------------------------- */

static int check_classes(const uint32_t *classes_bytes, uint32_t classes_count)
{
    if (classes_count == 0 || classes_count > NP_POOL_CLASSES_MAX_COUNT)
        return -EINVAL;
    for (uint32_t i = 0; i < classes_count; i++) {
        uint32_t bytes = classes_bytes[i];
        if (bytes < NP_POOL_BLOCK_MIN_BYTES || bytes > NP_POOL_BLOCK_MAX_BYTES ||
            (bytes & (bytes - 1)) || (i > 0 && bytes <= classes_bytes[i - 1]))
            return -EINVAL;
    }
    return 0;
}

int np_pool_open(struct np_pool *pool, size_t size_bytes, const uint32_t *classes_bytes,
                 uint32_t classes_count, int arena_flags)
{
    memset(pool, 0, sizeof(*pool));
    int err = check_classes(classes_bytes, classes_count);
    if (err < 0 || size_bytes == 0)
        return -EINVAL;
    size_t chunk = classes_bytes[classes_count - 1];
    size_t chunks = size_bytes / chunk + (size_bytes % chunk != 0);
    size_t blocks_per_chunk = chunk / classes_bytes[0];
    if (chunks > UINT32_MAX / 2 / blocks_per_chunk)
        return -EINVAL;
    err = np_arena_open(&pool->arena, chunks * chunk, arena_flags);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < classes_count; i++)
        pool->classes[i].block_bytes = classes_bytes[i];
    pool->classes_count = classes_count;
    pool->chunks_count = (uint32_t)chunks;
    pool->size_bytes = chunks * chunk;
    pool->chunks = calloc(chunks, sizeof(*pool->chunks));
    pool->entries = calloc(chunks * blocks_per_chunk, sizeof(*pool->entries));
    if (!pool->chunks || !pool->entries || pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool->chunks);
        free(pool->entries);
        np_arena_close(&pool->arena);
        memset(pool, 0, sizeof(*pool));
        return -ENOMEM;
    }
    np_arena_poison(pool->arena.base, pool->size_bytes);
    for (uint32_t i = pool->chunks_count; i > 0; i--)
        list_push(pool, &pool->free_chunks, i - 1);
    pool->free_chunks_count = pool->chunks_count;
    return 0;
}

void np_pool_close(struct np_pool *pool)
{
    if (!pool->arena.base)
        return;
    for (uint32_t i = 0; i < pool->classes_count; i++)
        NP_ASSERT(pool->classes[i].used_count == 0);
    pthread_mutex_destroy(&pool->lock);
    free(pool->chunks);
    free(pool->entries);
    np_arena_close(&pool->arena);
    memset(pool, 0, sizeof(*pool));
}

/* ---- blocks -------------------------------------------------------------------------------- */

static struct np_pool_entry *entry_of(struct np_pool *pool, np_block block)
{
    uint32_t number = (uint32_t)block - 1;
    NP_ASSERT(number < pool->size_bytes / unit_bytes(pool));
    struct np_pool_entry *entry = &pool->entries[number];
    NP_ASSERT(entry->generation == (uint32_t)(block >> 32));
    return entry;
}

static uint32_t chunk_of(const struct np_pool *pool, np_block block)
{
    return (uint32_t)((size_t)((uint32_t)block - 1) * unit_bytes(pool) / chunk_bytes(pool));
}

/* A chunk of the class with a free block, made out of a free one if need be; -1: there is none. */
static int64_t find_chunk(struct np_pool *pool, uint32_t class_index)
{
    struct np_pool_class *class = &pool->classes[class_index];
    if (class->partial)
        return class->partial - 1;
    if (!pool->free_chunks)
        return -1;
    uint32_t index = pool->free_chunks - 1;
    list_remove(pool, &pool->free_chunks, index);
    pool->free_chunks_count--;
    pool->chunks[index] = (struct np_pool_chunk){.class_index = (uint8_t)class_index};
    list_push(pool, &class->partial, index);
    class->chunks_count++;
    return index;
}

static np_block take_from(struct np_pool *pool, uint32_t index)
{
    struct np_pool_chunk *chunk = &pool->chunks[index];
    struct np_pool_class *class = &pool->classes[chunk->class_index];
    uint32_t blocks_count = (uint32_t)(chunk_bytes(pool) / class->block_bytes);
    uint32_t number;
    if (chunk->free_head) {
        number = chunk->free_head - 1;
        chunk->free_head = pool->entries[number].next;
    } else {
        size_t at_bytes = index * chunk_bytes(pool) +
                          (size_t)chunk->fresh_count++ * class->block_bytes;
        number = (uint32_t)(at_bytes / unit_bytes(pool));
    }
    if (++chunk->used_count == blocks_count)
        list_remove(pool, &class->partial, index);
    class->used_count++;
    class->taken_count++;
    struct np_pool_entry *entry = &pool->entries[number];
    entry->generation++;
    return (np_block)entry->generation << 32 | (number + 1);
}

int np_pool_take(struct np_pool *pool, size_t bytes, np_block *out)
{
    uint32_t class_index = 0;
    while (class_index < pool->classes_count && pool->classes[class_index].block_bytes < bytes)
        class_index++;
    if (class_index == pool->classes_count)
        return -EMSGSIZE;
    pthread_mutex_lock(&pool->lock);
    int64_t index = find_chunk(pool, class_index);
    if (index >= 0)
        *out = take_from(pool, (uint32_t)index);
    else
        pool->classes[class_index].refused_count++;
    pthread_mutex_unlock(&pool->lock);
    if (index < 0)
        return -ENOBUFS;
    np_arena_unpoison(np_pool_base(pool, *out), pool->classes[class_index].block_bytes);
    return 0;
}

void np_pool_drop(struct np_pool *pool, np_block block)
{
    uint32_t number = (uint32_t)block - 1, index = chunk_of(pool, block);
    pthread_mutex_lock(&pool->lock);
    struct np_pool_entry *entry = entry_of(pool, block); /* or aborts: it went back already */
    struct np_pool_chunk *chunk = &pool->chunks[index];
    struct np_pool_class *class = &pool->classes[chunk->class_index];
    np_arena_poison(pool->arena.base + (size_t)number * unit_bytes(pool), class->block_bytes);
    entry->generation++;
    entry->next = chunk->free_head;
    chunk->free_head = number + 1;
    if (chunk->used_count-- == chunk_bytes(pool) / class->block_bytes)
        list_push(pool, &class->partial, index);
    class->used_count--;
    if (chunk->used_count == 0) { /* nobody's: the next class that needs one may have it */
        list_remove(pool, &class->partial, index);
        class->chunks_count--;
        list_push(pool, &pool->free_chunks, index);
        pool->free_chunks_count++;
    }
    pthread_mutex_unlock(&pool->lock);
}

uint8_t *np_pool_base(struct np_pool *pool, np_block block)
{
    entry_of(pool, block);
    return pool->arena.base + (size_t)((uint32_t)block - 1) * unit_bytes(pool);
}

/* ---- counting ------------------------------------------------------------------------------ */

void np_pool_get_stats(struct np_pool *pool, struct np_pool_stats *out)
{
    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&pool->lock);
    memcpy(out->classes, pool->classes, sizeof(out->classes));
    out->free_chunk_bytes = (size_t)pool->free_chunks_count * chunk_bytes(pool);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->classes_count; i++) {
        out->used_bytes += (size_t)out->classes[i].used_count * out->classes[i].block_bytes;
        out->blocks_used_count += out->classes[i].used_count;
    }
    out->size_bytes = pool->size_bytes;
    out->classes_count = pool->classes_count;
    out->arena_kind = pool->arena.kind;
}
