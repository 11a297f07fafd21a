//! (room to be furnished) A scenario on a topology: clusters, CIDRs, routes, versions, steps, calls and their power. Pure.
