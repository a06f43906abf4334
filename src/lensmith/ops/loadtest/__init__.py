"""Load tests of a service, by closed loop or open loop, and the latencies that its callers would see."""
