"""Contract suites, scripted policies and the conformance runner: library code for tests of your own."""
