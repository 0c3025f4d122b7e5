"""What AWS has of the exporter, asked through the AWS CLI: a stack, and the function with its versions.

No text of others is printed but by `say` and `plain`.
"""
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path


class Failed(Exception):
    """What to tell the person who called."""


def plain(text):
    """Other people's text as a terminal may get it: what controls one, or reorders a line, is shown as its number."""
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in str(text))


def say(text=""):
    """Every line that this program prints goes through here."""
    print("\n".join(plain(line) for line in text.split("\n")), flush=True)


def aws(*args, given=None):
    """What the AWS CLI returns. `given` is its whole input, whatever characters it holds."""
    command = ["aws", *args, "--output", "json"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        if given is not None:
            json.dump(given, file)
            file.flush()
            command += ["--cli-input-json", f"file://{file.name}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise Failed(plain(done.stderr.strip()) or f"{' '.join(args)} failed")
    return json.loads(done.stdout) if done.stdout.strip() else {}


class Stack:
    """A stack, and the template that this checkout has for it."""

    def __init__(self, name, path):
        self.name, self.template = name, Path(path).read_text()
        section = re.search(r"^Parameters:\n((?:  .*\n)+)", self.template, re.M)[1]
        # The names, and whether there is a default.
        declared = re.findall(r"^  (\w+):\n((?:    .*\n)+)", section, re.M)
        self.known = {parameter: "    Default:" in body for parameter, body in declared}
        try:
            self.take(aws("cloudformation", "describe-stacks", "--stack-name", name)["Stacks"][0])
        except Failed as failure:
            if "does not exist" not in str(failure):
                raise
            self.take({})

    def take(self, found):
        self.id, self.status = found.get("StackId"), found.get("StackStatus", "")
        self.parameters = {p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])}
        self.outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}

    def missing(self, given):
        """Parameters that need a value and have none."""
        return {name for name, has_default in self.known.items() if not has_default} - set(given) - set(self.parameters)

    def check_template(self, release):
        """Fails if somebody has sent another template: then this checkout can't say what it changes."""
        body = aws("cloudformation", "get-template", "--stack-name", self.name, "--template-stage", "Original")["TemplateBody"]
        if body != self.template:
            raise Failed(
                f"{self.name} has another template than this checkout. Of commit {commit_of(release)}? "
                "Check that out.\nIf this checkout is that commit, somebody changed the stack's template: make deploy puts it right."
            )

    def update(self, parameters):
        """Creates or updates the stack, and waits for it. Parameters that are not given keep their values."""
        given = {name: value for name, value in parameters.items() if name in self.known}
        values = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
        kept = set(self.known) & set(self.parameters) - set(given)
        values += [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)]
        request = {
            "StackName": self.name,
            "TemplateBody": self.template,
            "Parameters": values,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if "Release" in given:
            request["Tags"] = [{"Key": "commit", "Value": commit_of(given["Release"])}]
        say(f"{'updating' if self.id else 'creating'} the stack {self.name}")
        if not self.id:
            # What can't be created leaves nothing that would have to be deleted by hand.
            request["OnFailure"] = "DELETE"
        try:
            self.id = aws("cloudformation", "update-stack" if self.id else "create-stack", given=request)["StackId"]
        except Failed as failure:
            if "No updates are to be performed" not in str(failure):
                raise
        self.wait()

    def wait(self):
        while True:
            found = aws("cloudformation", "describe-stacks", "--stack-name", self.id)["Stacks"][0]
            self.status = found["StackStatus"]
            if not self.status.endswith("_IN_PROGRESS"):
                break
            time.sleep(2)
        if self.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise Failed(f"The stack is {self.status}:\n{self.reasons()}")
        self.take(found)

    def reasons(self):
        events = aws("cloudformation", "describe-stack-events", "--stack-name", self.id)["StackEvents"]
        last = next((n for n, event in enumerate(events) if "User Initiated" in event.get("ResourceStatusReason", "")), 0)
        failed = [event for event in events[: last + 1] if "FAILED" in event["ResourceStatus"]]
        return "\n".join(f"  {e['LogicalResourceId']}: {plain(e.get('ResourceStatusReason', ''))}" for e in reversed(failed))


class Function:
    """The deployed function: its versions, and the alias that says which of them is live."""

    def __init__(self, name):
        self.name = name

    def alias(self, name):
        return aws("lambda", "get-alias", "--function-name", self.name, "--name", name)

    def version(self, number):
        """The configuration of a version."""
        if not re.fullmatch(r"[0-9]+|\$LATEST", number):
            raise Failed(f"{plain(number)} is not the number of a version.")
        return aws("lambda", "get-function-configuration", "--function-name", self.name, "--qualifier", number)

    def move_live(self, before, target, note):
        """Makes a version live. Fails if somebody has moved `live` since `before` was read."""
        request = {
            "FunctionName": self.name, "Name": "live", "FunctionVersion": target, "Description": note,
            "RoutingConfig": {"AdditionalVersionWeights": {}}, "RevisionId": before["RevisionId"],
        }
        waits = False
        while True:
            try:
                return aws("lambda", "update-alias", given=request)
            except Failed as failure:
                if "PreconditionFailed" in str(failure):
                    raise Failed(
                        f"Somebody else has moved live meanwhile. Version {target} was not made live: make status, and then "
                        f"make release TO={target} if it is to be."
                    ) from failure
                if "ResourceConflict" not in str(failure):
                    raise
            if not waits:
                say("The function is being updated. Waiting until it ends; Ctrl-C leaves live as it is.")
            waits = True
            time.sleep(2)


def commit_of(release):
    """The commit of a release, or of the version that it describes: ten digits, a hyphen, the commit."""
    return plain(release[11:]) or "unknown"
