from tests.stories.codebuild.conftest import Bench, cause, phases, spec


def test_first(bench: Bench) -> None:
    build = bench.build(
        spec(
            install=["echo hi; FOO=bar", "cd /tmp"],
            build=[
                "echo $FOO; pwd",
                "aws sts get-caller-identity",
                "python3 --version; which python3 pip pytest git aws; pip --version",
            ],
        )
    )
    print("\n".join(bench.lines(build)))
    print(build)
    assert 0
