/* np_arena.h - one mapping of memory, on the largest pages that can be had.
 *
 * Purpose   Receive memory wants few TLB entries. The ladder: MAP_HUGETLB (2 MiB pages that the
 *           administrator set aside), transparent huge pages (madvise), plain pages. Each rung's
 *           refusal leads to the next; `kind` says where it ended. NP_ARENA_PLAIN_ONLY skips the
 *           ladder, NP_ARENA_HUGETLB_ONLY stays on its first rung.
 * Sizes     size_bytes is rounded up to the page size of the rung that was taken. Arenas below
 *           2 MiB take MAP_HUGETLB only when they would fill half such a page, and never ask for
 *           transparent huge pages: zeroing 2 MiB at the first touch costs more than it saves.
 * Ownership The arena owns the mapping; np_arena_close unmaps it. Under AddressSanitizer memory
 *           can be poisoned while nobody may read it: np_arena_poison / np_arena_unpoison
 *           (no-ops in other builds).
 * Errors    0 or -errno (-ENOMEM when the last rung allowed is refused, -EINVAL for a size of 0).
 * Threads   Any, one at a time.
 */
#ifndef NP_ARENA_H
#define NP_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum np_arena_kind { NP_ARENA_HUGETLB = 1, NP_ARENA_THP, NP_ARENA_PLAIN };
enum np_arena_flags { NP_ARENA_LADDER = 0, NP_ARENA_PLAIN_ONLY = 1, NP_ARENA_HUGETLB_ONLY = 2 };

struct np_arena {
    uint8_t *base;
    size_t size_bytes;
    uint8_t kind; /* enum np_arena_kind */
};

int np_arena_open(struct np_arena *arena, size_t size_bytes, int flags);
void np_arena_close(struct np_arena *arena);
void np_arena_poison(const void *base, size_t size_bytes);
void np_arena_unpoison(const void *base, size_t size_bytes);
/* "hugetlb", "thp" or "plain". */
const char *np_arena_kind_name(int kind);

#endif
