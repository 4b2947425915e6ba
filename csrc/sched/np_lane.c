/* np_lane.c - the choice between lanes. */
#include "sched/np_lane.h"

int np_lane_pick(struct np_lane_ages *ages, uint32_t lanes_mask)
{
    NP_DCHECK(lanes_mask);
    int picked = __builtin_ctz(lanes_mask);
    if (NP_LIKELY((lanes_mask & (lanes_mask - 1)) == 0)) {
        ages->passed_over[picked] = 0;
        return picked;
    }
    /* The lowest first: it has waited longest. */
    for (int lane = NP_LANE_LOW; lane > NP_LANE_CONTROL; lane--) {
        if (lanes_mask >> lane & 1 && ages->passed_over[lane] >= np_lane_age_max(lane)) {
            picked = lane;
            break;
        }
    }
    for (int lane = 0; lane < NP_LANES; lane++) {
        if (lane == picked)
            ages->passed_over[lane] = 0;
        else if (lanes_mask >> lane & 1)
            ages->passed_over[lane]++;
    }
    return picked;
}
