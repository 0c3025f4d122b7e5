"""What needs no emulator: other people's texts, odd input, and how the commands end.

usage: units.py
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
os.environ["ENVIRONMENT"] = "test"
# `make test-deploy` names the commit of this checkout to all that it runs.
os.environ.pop("COMMIT", None)
os.chdir(ROOT)
sys.path.insert(0, str(ROOT / "operations"))
import stack  # noqa: E402

# An escape sequence, a bidi control, a line separator and a line's end.
EVIL = "a\x1b[2Jb\u202ec\u2028d\ne"
SHOWN = r"a\u{1b}[2Jb\u{202e}c\u{2028}d\u{a}e"


def run(command, cwd=ROOT, **environment):
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


class Texts(unittest.TestCase):
    def test_what_controls_a_terminal_is_shown_as_its_number(self):
        self.assertEqual(stack.plain(EVIL), SHOWN)
        self.assertEqual(stack.plain("é $x'y 日本"), "é $x'y 日本")

    def test_no_text_of_a_report_reaches_the_terminal_raw(self):
        counts = {"desired": 3, "stale": 3}
        of_next = {"settings": counts, "query_configs": {}, "examples": {"stale": [EVIL, "a$b'c", "d"]}}
        said, more = stack.difference({"settings": {}, "query_configs": {}}, of_next)
        self.assertEqual(more, 3)
        self.assertTrue(all(char == "\n" or char.isprintable() for char in said), said)

    def test_a_hint_can_be_typed_as_it_is_printed(self):
        counts = {"desired": 1, "stale": 1}
        of_next = {"settings": counts, "query_configs": {}, "examples": {"stale": ["a$b'c $(touch x)"]}}
        hint = stack.difference({"settings": {}, "query_configs": {}}, of_next)[0].splitlines()[-1].strip()
        with tempfile.TemporaryDirectory() as folder:
            operator = Path(folder, "operator")
            operator.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
            operator.chmod(0o755)
            _, said = run(["sh", "-c", hint], OPERATOR=str(operator))
        self.assertIn("KEY=a$b'c $(touch x)\n", said)
        self.assertFalse(Path(ROOT, "x").exists())

    def test_what_the_aws_cli_says_is_shown_as_text(self):
        with tempfile.TemporaryDirectory() as folder:
            aws = Path(folder, "aws")
            aws.write_text("#!/bin/sh\nprintf 'An error \\033[2J\\342\\200\\256' >&2\nexit 255\n")
            aws.chmod(0o755)
            with mock.patch.dict(os.environ, {"PATH": f"{folder}:{os.environ['PATH']}"}):
                with self.assertRaises(stack.Failed) as failed:
                    stack.aws("sts", "get-caller-identity")
        self.assertEqual(str(failed.exception), r"An error \u{1b}[2J\u{202e}")


class Input(unittest.TestCase):
    def failure(self, action, **environment):
        with mock.patch.dict(os.environ, environment), self.assertRaises(stack.Failed) as failed:
            action()
        return str(failed.exception)

    def test_parameters_that_can_not_be_read_are_a_sentence(self):
        for environment in ({"PARAMETERS": "Name='a"}, {"PARAMETERS_FILE": "/nowhere"}, {"PARAMETERS_FILE": "/"}):
            self.assertIn("The parameters can't be read", self.failure(stack.given_parameters, **environment))
        self.assertIn("is not Name=value", self.failure(stack.given_parameters, PARAMETERS="Name"))
        self.assertIn("set by make", self.failure(stack.given_parameters, PARAMETERS="Code=s3://a/b"))

    def zipped(self, commit):
        path = Path(self.folder.name, "x.zip")
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("bootstrap", b"\x7fELF" + bytes(14) + b"\x3e\x00")
            packed.writestr("target/lambda/commit", commit)
        return str(path)

    def test_only_a_zip_of_a_commit_is_deployed(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for commit, why in (("$(id)", "no name of a commit"), ("a\nb", "no name of a commit"), ("a" * 41, "no name of a commit"),
                            ("abc-dirty", "nobody could find its sources"), ("abc", "not of def for x86_64")):
            with mock.patch.object(stack, "ZIP", self.zipped(commit)):
                self.assertIn(why, self.failure(stack.built, COMMIT="def", ARCH="x86_64"))
        broken = Path(self.folder.name, "broken.zip")
        broken.write_text("no zip")
        for path in (str(broken), "/nowhere"):
            with mock.patch.object(stack, "ZIP", path):
                self.assertIn("make build", self.failure(stack.built, COMMIT="def", ARCH="x86_64"))

    def test_ctrl_c_ends_with_a_sentence(self):
        code = "import sys, runpy, subprocess\n" \
               "def stop(*_, **__): raise KeyboardInterrupt\n" \
               "subprocess.run = stop\n" \
               "sys.argv = ['stack.py', 'rollback']\n" \
               "runpy.run_path('operations/stack.py', run_name='__main__')\n"
        status, said = run([sys.executable, "-c", code], ENVIRONMENT="test", PYTHONPATH="operations")
        self.assertEqual((status, "Traceback" in said), (1, False), said)
        self.assertIn("What AWS has begun goes on", said)


class Names(unittest.TestCase):
    """No name runs a command: of a tag, a version, an environment."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.work = Path(self.folder.name)
        programs = self.work / "bin"
        programs.mkdir()
        for name in ("cargo", "cargo-lambda", "aws"):
            (programs / name).write_text("#!/bin/sh\nexit 0\n")
            (programs / name).chmod(0o755)
        (self.work / "Makefile").write_text((ROOT / "Makefile").read_text())
        self.path = {"PATH": f"{programs}:{os.environ['PATH']}"}

    def make(self, *words, **environment):
        result = run(["make", *words], cwd=self.work, **{**self.path, "MAKEFLAGS": "", **environment})
        self.assertFalse((self.work / "pwned").exists(), result)
        return result

    def test_a_tag_is_a_name(self):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example"]
        run(["git", "init", "-q", "."], cwd=self.work)
        run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=self.work)
        run([*git, "tag", "-a", "v;touch${IFS}pwned", "-m", "x"], cwd=self.work)
        status, said = self.make("build")
        self.assertNotEqual(status, 0)
        self.assertIn("COMMIT is 1 to 40 letters", said)
        run([*git, "tag", "-d", "v;touch${IFS}pwned"], cwd=self.work)
        self.assertEqual(self.make("build")[0], 0)

    def test_what_is_typed_is_a_name(self):
        for word in ("$(touch pwned)", "`touch pwned`", ";touch pwned;", "$(shell touch pwned)", '";touch pwned;"'):
            self.assertNotEqual(self.make("build", f"COMMIT={word}")[0], 0)
            self.assertNotEqual(self.make("build", COMMIT=word)[0], 0)
            self.make("release", f"TO={word}", ENVIRONMENT="test")
            self.make("rollback", ENVIRONMENT=word)
            self.make("tail", ENVIRONMENT="test", STACK=word)
        self.assertNotEqual(self.make("build", "ARCH=riscv")[0], 0)


class Pins(unittest.TestCase):
    def test_what_builds_and_tests_is_what_was_looked_at(self):
        workflows = "".join(path.read_text() for path in Path(".github/workflows").iterdir())
        for action in re.findall(r"uses: ([^.].*)", workflows):
            self.assertRegex(action, r"@[0-9a-f]{40} # v")
        scripts = "".join(Path(path).read_text() for path in (".ci/run", "tests/deployment/install"))
        installed = re.findall(r"pip\"? (?:install|download) (?:.*\\\n)*.*", workflows + scripts)
        self.assertGreater(len(installed), 6)
        # Nothing that is deployed is built by what looks at the templates.
        for line in installed:
            self.assertTrue("--require-hashes" in line or line == "pip install checkov==3.3.30", line)
        self.assertIn("ziglang==", Path(".ci/build.txt").read_text())


if __name__ == "__main__":
    unittest.main()
