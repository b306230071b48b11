"""The network: connections, TLS, proxies, and their errors as ours."""
