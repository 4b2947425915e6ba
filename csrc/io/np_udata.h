/* np_udata.h - the 64-bit cookie that travels with an operation: op | slot | generation.
 *
 * Purpose   Packed in one place, decoded in one place. The kernel returns it with each completion;
 *           a completion whose generation is not the slot's present one is stale: it is counted
 *           and dropped, so a reused slot or fd number never meets an old completion.
 * Layout    bits 63..56 kind (enum np_op_kind), 55..32 slot, 31..0 generation (never 0).
 *           The value 0 is "no operation". Kinds from NP_UDATA_RESERVED up are the backend's own.
 */
#ifndef NP_UDATA_H
#define NP_UDATA_H

#include <stdint.h>

#include "base/np_assert.h"
#include "base/np_limits.h"

typedef uint64_t np_udata;

#define NP_UDATA_NONE ((np_udata)0)
#define NP_UDATA_RESERVED 0xF0u /* kinds >= this never name an op slot */
#define NP_UDATA_CANCEL ((np_udata)0xF1 << 56)
#define NP_UDATA_WAKE ((np_udata)0xF2 << 56)
#define NP_UDATA_REGION_KIND 0xF3u /* registered memory that was let go: its number is the slot */

NP_STATIC_ASSERT(NP_OP_MAX_SLOTS == 1u << 24, "the slot number has 24 bits");

static inline np_udata np_udata_pack(uint8_t kind, uint32_t slot, uint32_t generation)
{
    return (np_udata)kind << 56 | (np_udata)(slot & (NP_OP_MAX_SLOTS - 1)) << 32 | generation;
}

static inline uint8_t np_udata_kind(np_udata u)
{
    return (uint8_t)(u >> 56);
}
static inline uint32_t np_udata_slot(np_udata u)
{
    return (uint32_t)(u >> 32) & (NP_OP_MAX_SLOTS - 1);
}
static inline uint32_t np_udata_generation(np_udata u)
{
    return (uint32_t)u;
}

#endif
