"""The pages, one module each. `make_page(site)` gives a page's routes."""
