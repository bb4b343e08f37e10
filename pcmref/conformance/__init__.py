"""The golden cases as a pytest suite that any backend can run.

    pytest --pyargs pcmref.conformance --pcmref-backend=package.module:Backend

One test a case and dtype, through the same verdict as `pcmref golden check`. Needs pytest.
"""
