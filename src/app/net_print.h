/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_NET_PRINT_H
#define HANOK_APP_NET_PRINT_H

#include <jansson.h>

/* Tables of `hanok net` for people, from the JSON that --json prints. */
void net_print_show(json_t *answer);
void net_print_macs(json_t *answer);
void net_print_flows(json_t *answer);
void net_print_list(json_t *networks);
void net_print_capture(json_t *answer);

#endif
