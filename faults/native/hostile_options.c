/* Reading the words of hostile clients: see hostile.c. */
#define _GNU_SOURCE
#include "hostile.h"

#include <stdlib.h>
#include <string.h>

static const char *const WHAT[WHATS] = {"send", "drip", "await", "hello", "secure", "data", "cut",
                                        "records", "renegotiate", "deaf", "sip", "wait", "loop", "fin", "reset",
                                        "learn", "ask", "renew"};
static const char *const RECORDS_OF[RECORD_KINDS] = {"empty", "update", "request-update", "warning", "change"};

static unsigned choice(const char *text, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(text, names[i]))
            return i;
    give_up(text);
}

static bool has_file(enum what what)
{
    return what == SEND || what == DRIP || what == DATA || what == CUT || what == RENEGOTIATE ||
           what == ASK;
}

static struct step parse_step(char *text)
{
    char *value = strchr(text, ':'), *number = NULL;
    if (value)
        *value++ = 0;
    struct step step = {.what = (enum what)choice(text, WHAT, WHATS)};
    if (has_file(step.what) || step.what == RECORDS || step.what == SIP) {
        if (!value)
            give_up(text);
        number = strrchr(value, '*');
        if (number)
            *number++ = 0;
        if (step.what == RECORDS)
            step.records = (enum records)choice(value, RECORDS_OF, RECORD_KINDS);
        else if (step.what == SIP)
            step.size = strtoull(value, NULL, 10);
        else
            step.bytes = read_file(value, &step.size);
    }
    number = number ? number : value;
    if (step.what == WAIT || step.what == LOOP || step.what == SECURE || step.what == RECORDS || number != value)
        step.count = number ? strtoull(number, NULL, 10) : 0;
    return step;
}

void parse_options(char *text, struct options *options)
{
    *options = (struct options){.addresses = 1, .rate = 1, .seconds = 600, .connections = 1};
    char *words, *steps, *ports;
    for (char *word = strtok_r(text, " ", &words); word; word = strtok_r(NULL, " ", &words)) {
        char *value = strchr(word, '=');
        if (!value)
            give_up(word);
        *value++ = 0;
        double number = atof(value);
        if (!strcmp(word, "source"))
            options->source = parse_address(value);
        else if (!strcmp(word, "first"))
            options->first = (unsigned)number;
        else if (!strcmp(word, "addresses"))
            options->addresses = (unsigned)number;
        else if (!strcmp(word, "connections"))
            options->connections = (unsigned)number;
        else if (!strcmp(word, "rate"))
            options->rate = number;
        else if (!strcmp(word, "seconds"))
            options->seconds = number;
        else if (!strcmp(word, "total"))
            options->total = (uint64_t)number;
        else if (!strcmp(word, "vary"))
            options->vary = (size_t)number;
        else if (!strcmp(word, "small-window"))
            options->small_window = number != 0;
        else if (!strcmp(word, "nice"))
            options->nice = (int)number;
        else if (!strcmp(word, "ports"))
            for (char *port = strtok_r(value, "+", &ports); port && options->port_count < MAX_PORTS;
                 port = strtok_r(NULL, "+", &ports))
                options->ports[options->port_count++] = (uint16_t)atoi(port);
        else if (strcmp(word, "script"))
            give_up(word);
        else
            for (char *step = strtok_r(value, ",", &steps); step && options->step_count < MAX_STEPS;
                 step = strtok_r(NULL, ",", &steps))
                options->steps[options->step_count++] = parse_step(step);
    }
    if (!options->port_count || !options->step_count || !options->addresses || !options->connections)
        give_up("ports, addresses, connections and a script are needed");
}
