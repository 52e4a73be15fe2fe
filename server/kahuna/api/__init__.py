"""The API on the wire: requests parsed, kinds called, answers, filters, pages and watches."""
