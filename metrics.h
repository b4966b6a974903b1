/* metrics.h: the same numbers as status.h, as Prometheus reads them: text, version 0.0.4.
 *
 * Names follow its conventions: base units (seconds, bytes), _total on what only grows, help and type before the first sample of a
 * family, all samples of a family together. A client's address is never a label: a label is a time series for ever, and there are
 * as many clients as anybody cares to send. Hosts of a forward proxy are bounded for the same reason: the busiest are named, the
 * rest is host="all others".
 *
 * Source: prometheus.io, "Exposition formats", "Metric and label naming". Any thread.
 */
#ifndef WEIR_METRICS_H
#define WEIR_METRICS_H

#include <stddef.h>

#include "lib/text.h"
#include "roster.h"

void metrics_write(struct proxy *const *proxies, size_t count, const struct roster_facts *facts, struct text *out);

#endif
