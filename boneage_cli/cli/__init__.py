"""One file per subcommand: parse, call one function of the package, print."""
