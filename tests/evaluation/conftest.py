from hypothesis import settings

# the same examples in every run, and no time limit on a machine that does other work
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
