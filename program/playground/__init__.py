"""The page that `citeqa serve` shows: plain HTML, CSS and JavaScript modules, served as they are."""
