"""What is learned and how it is judged and kept: routers, forecasters, policy, evaluation, registry, releases; imports features only."""
