/* np_pins.c - see np_pins.h. */
#include "mem/np_pins.h"

#include <errno.h>
#include <stdlib.h>

#include "base/np_assert.h"

#define FIRST_PINS 4u

static struct np_pin *pin_at(const struct np_pins *pins, uint32_t i)
{
    return &pins->pins[(pins->head + i) & (pins->cap - 1)];
}

int np_pins_reserve(struct np_pins *pins, uint32_t count)
{
    if (count <= pins->cap - pins->count)
        return 0;
    uint32_t cap = pins->cap ? pins->cap : FIRST_PINS;
    while (cap - pins->count < count) {
        if (cap > UINT32_MAX / 4)
            return -ENOMEM;
        cap *= 2;
    }
    struct np_pin *grown = malloc(sizeof(*grown) * cap);
    if (!grown)
        return -ENOMEM;
    for (uint32_t i = 0; i < pins->count; i++)
        grown[i] = *pin_at(pins, i);
    free(pins->pins);
    pins->pins = grown;
    pins->cap = cap;
    pins->head = 0;
    return 0;
}

void np_pins_push(struct np_pins *pins, np_udata op, void *owner)
{
    NP_DCHECK(owner != NULL);
    NP_DCHECK(op != NP_UDATA_NONE);
    NP_ASSERT(pins->count < pins->cap);
    *pin_at(pins, pins->count) = (struct np_pin){owner, op};
    pins->count++;
}

void np_pins_notice(struct np_pins *pins, np_udata op)
{
    uint32_t i = 0;
    while (i < pins->count && pin_at(pins, i)->op != op)
        i++;
    for (; i < pins->count && pin_at(pins, i)->op == op; i++) /* they stand together */
        pin_at(pins, i)->op = NP_UDATA_NONE;
}

void *np_pins_force_pop(struct np_pins *pins)
{
    if (!pins->count)
        return NULL;
    void *owner = pin_at(pins, 0)->owner;
    pins->head = (pins->head + 1) & (pins->cap - 1);
    if (--pins->count == 0) {
        free(pins->pins);
        np_pins_init(pins);
    }
    return owner;
}

void *np_pins_pop(struct np_pins *pins)
{
    return pins->count && pin_at(pins, 0)->op == NP_UDATA_NONE ? np_pins_force_pop(pins) : NULL;
}
