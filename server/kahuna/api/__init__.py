"""The gRPC API: parses requests, calls the kinds, and answers with resources, pages and watches."""
