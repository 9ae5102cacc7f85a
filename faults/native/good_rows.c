/* Reading a row of good clients: see good.c. */
#define _GNU_SOURCE
#include "good.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST_SEGMENT = 536 };
static const char *const STEP_NAMES[KINDS_OF_STEP] = {"send",  "expect", "wait", "pace", "end",  "loop",
                                                      "hello", "apart",  "open", "echo", "poll", "close"};

static bool has_value(enum what what)
{
    return what == SEND || what == EXPECT || what == WAIT || what == PACE || what == LOOP || what == ECHO;
}

static struct step parse_step(char *text)
{
    char *value = strchr(text, ':'), *slash;
    struct step step = {0};
    if (value)
        *value++ = 0;
    while (step.what < KINDS_OF_STEP && strcmp(text, STEP_NAMES[step.what]))
        step.what++;
    if (step.what == KINDS_OF_STEP || (!value && has_value(step.what)))
        give_up(text);
    if (step.what == SEND || step.what == EXPECT || step.what == ECHO) {
        step.bytes = read_file(value, &step.size);
    } else if (value) {
        step.size = strtoull(value, &slash, 10);
        step.size *= step.what == WAIT ? 1000000u : 1u;
        step.ns = *slash ? strtoull(slash + 1, NULL, 10) * 1000000u : 0;
    }
    return step;
}

void parse_row(char *text, struct row *row)
{
    *row = (struct row){.addresses = 1, .rate = 1};
    char *words, *steps;
    for (char *word = strtok_r(text, " ", &words); word; word = strtok_r(NULL, " ", &words)) {
        char *value = strchr(word, '=');
        if (!value)
            give_up(word);
        *value++ = 0;
        double number = atof(value);
        if (!strcmp(word, "port"))
            row->port = (uint16_t)number;
        else if (!strcmp(word, "source"))
            row->source = parse_address(value);
        else if (!strcmp(word, "addresses"))
            row->addresses = (unsigned)number;
        else if (!strcmp(word, "rate"))
            row->rate = number;
        else if (!strcmp(word, "count"))
            row->count = (unsigned)number;
        else if (!strcmp(word, "window"))
            row->shape = (struct shape){.receive_buffer = (int)number, .segment = SMALLEST_SEGMENT};
        else if (!strcmp(word, "tls"))
            row->authority = value;
        else if (!strcmp(word, "name"))
            row->name = value;
        else if (strcmp(word, "script"))
            give_up(word);
        else
            for (char *step = strtok_r(value, ",", &steps); step; step = strtok_r(NULL, ",", &steps)) {
                if (row->step_count == MAX_STEPS)
                    give_up("a script has too many steps");
                row->steps[row->step_count++] = parse_step(step);
            }
    }
    row->shape.no_delay = true;
}
