"""Side by side with peers, in one run on one machine. No test asserts a time: these print ratios."""
