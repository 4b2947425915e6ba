/* np_lane.h - which lane is next: higher ones first, and every one progresses.
 *
 * Purpose   CONTROL before HIGH before NORMAL before LOW, unless a lower one has been passed over
 *           NP_LANE_AGE_* times since it was last served: then it is its turn.
 * Bound     A lane that has something is served at the latest with the worker's
 *           (age + number of lanes below it + 1)th task: HIGH 11th, NORMAL 34th, LOW 65th. So
 *           LOW has 1/65 of a saturated worker at the least; a task with n others of its lane
 *           before it runs within (n + 1) times that many. CONTROL waits for at most the three
 *           lanes below it.
 * Ownership A value: copy it, embed it.
 * Threads   One.
 */
#ifndef NP_LANE_H
#define NP_LANE_H

#include <stdint.h>

#include "base/np_assert.h"
#include "base/np_limits.h"
#include "sched/np_task.h"

struct np_lane_ages {
    uint32_t passed_over[NP_LANES]; /* how often since it was served; only counts when not empty */
};

/* How often a lane may be passed over. CONTROL never is: the others are passed over for it. */
static inline uint32_t np_lane_age_max(int lane)
{
    static const uint32_t max[NP_LANES] = {UINT32_MAX, NP_LANE_AGE_HIGH_COUNT,
                                           NP_LANE_AGE_NORMAL_COUNT, NP_LANE_AGE_LOW_COUNT};
    return max[lane];
}

/* lanes_mask: bit l, lane l has something; not 0. Returns the lane and counts the others' ages. */
int np_lane_pick(struct np_lane_ages *ages, uint32_t lanes_mask);

#endif
