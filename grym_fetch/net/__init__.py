"""The network: connections, TLS, proxies, and their errors turned into ours."""
