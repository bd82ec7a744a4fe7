from benchmarks.flow import format_table, measure


def test_errors_are_those_of_estimates():
    arms = measure(["dis", "dis"], clips=1, size=(96, 160), direction="both")
    for arm in arms:
        assert 0 < sum(arm.error) / len(arm.error) < 2
        assert len(arm.error) == 4 and len(arm.seconds) == 3
    assert arms[0].error == arms[1].error
    _header, *rows = format_table(arms).splitlines()
    assert [row.split()[0] for row in rows] == ["dis", "dis"]
    assert rows[0].split()[-1] == "1.000"
