#!/usr/bin/env python3
"""Deploys, configures, releases and rolls back the stack of an environment.

A version goes live only if it would change no more in KV than the live one, or if somebody says so. Which one is
live is a parameter of the stack, so that no other change, and no update that fails, moves it.

usage: stack.py deploy | configure | release [VERSION] | rollback [VERSION]
Reads PARAMETERS (Name=value ...) and PARAMETERS_FILE (one Name=value a line) from the environment.
"""
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ENVIRONMENT = os.environ["ENVIRONMENT"]
STACK = os.environ.get("STACK") or f"{ENVIRONMENT}-ecom-settings-exporter"
OPERATOR = os.environ.get("OPERATOR") or "target/debug/operator"
ZIP = "target/lambda/bootstrap/bootstrap.zip"
BUILT = os.environ.get("ZIP") or ZIP
DEFINITION = "operations/reconcile.asl.json"
# What a version does not hold: a change of these publishes none. A test compares them with the template.
NOT_OF_THE_FUNCTION = {
    "StreamEnabled", "BatchingWindowSeconds", "ParallelizationFactor", "RepairEnabled", "ReconcileEveryMinutes",
    "DriftAlarmThreshold", "AlarmTopicArn", "NoticeTopicArn", "ProxyCacheTtl", "RunbookUrl", "LogRetentionDays",
    "ReservedConcurrency",
}
SET_HERE = {"Environment", "Architecture", "Commit", "Release", "LiveVersion", "PreviousVersion"}
# Classes of a report. More of one of them is a change, or a key whose change is not known.
CHANGES = {
    "missing": "missing keys that it would write",
    "stale": "keys that it would rewrite",
    "orphaned": "keys that it would delete",
    "conflicting": "keys that conflict",
    "rejected": "items that it rejects",
    "failed": "keys that it could not compare",
}


class Failed(Exception):
    """What to tell the person who called."""


def say(text=""):
    print(text, flush=True)


def aws(*args, given=None):
    """The answer of the AWS CLI. `given` is its whole input, whatever characters it holds."""
    command = ["aws", *args, "--output", "json"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        if given is not None:
            json.dump(given, file)
            file.flush()
            command += ["--cli-input-json", f"file://{file.name}"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"{' '.join(args)} failed")
    return json.loads(done.stdout) if done.stdout.strip() else {}


def given_parameters():
    """The parameters that the caller named, each of them whole."""
    words = shlex.split(os.environ.get("PARAMETERS", ""))
    if path := os.environ.get("PARAMETERS_FILE"):
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
        words = [line for line in lines if line and not line.startswith("#")] + words
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals:
            raise Failed(f"{word} is not Name=value. Quote a value with spaces: PARAMETERS=\"Name='a b'\"")
        if name in SET_HERE:
            raise Failed(f"{name} is set by make.")
    return dict(word.split("=", 1) for word in words)


class Stack:
    """What CloudFormation knows of the stack."""

    def __init__(self):
        self.read()

    def read(self):
        try:
            found = aws("cloudformation", "describe-stacks", "--stack-name", STACK)["Stacks"][0]
        except Failed as failure:
            if "does not exist" not in str(failure):
                raise
            found = {}
        return self.take(found)

    def take(self, found):
        self.id = found.get("StackId")
        self.status = found.get("StackStatus", "")
        self.parameters = {p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])}
        self.outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
        return self

    @property
    def function(self):
        return os.environ.get("FUNCTION") or self.outputs["FunctionName"]

    def must_exist(self):
        if not self.id:
            raise Failed(f"There is no stack {STACK}: make deploy")
        return self

    def template(self):
        """The template as it was sent. The processed one has SAM's literals in place of parameters."""
        body = aws("cloudformation", "get-template", "--stack-name", STACK, "--template-stage", "Original")
        body = body["TemplateBody"]
        return body if isinstance(body, str) else json.dumps(body)

    def update(self, template, parameters):
        """Creates or updates the stack, and waits for it. Parameters that are not given keep their values."""
        known = set(re.findall(r"^  (\w+):$", template.split("\nParameters:\n")[1].split("\nRules:\n")[0], re.M))
        if unknown := set(parameters) - known:
            raise Failed(f"The template has no parameter {', '.join(sorted(unknown))}.")
        values = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
        kept = known & set(self.parameters) - set(parameters)
        values += [{"ParameterKey": name, "UsePreviousValue": True} for name in kept]
        request = {
            "StackName": STACK,
            "TemplateURL": address(*upload(("template.yaml", template.encode()))),
            "Parameters": values,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if "Commit" in parameters:
            request["Tags"] = [{"Key": "commit", "Value": parameters["Commit"]}]
        if not self.id:
            # What can't be created leaves nothing that would have to be deleted by hand.
            request["OnFailure"] = "DELETE"
        verb = "update-stack" if self.id else "create-stack"
        try:
            self.id = aws("cloudformation", verb, given=request).get("StackId", self.id)
        except Failed as failure:
            if "No updates are to be performed" not in str(failure):
                raise
        self.wait()

    def wait(self):
        began = time.time()
        while True:
            found = aws("cloudformation", "describe-stacks", "--stack-name", self.id)["Stacks"][0]
            self.status = found["StackStatus"]
            if not self.status.endswith("_IN_PROGRESS"):
                break
            time.sleep(2 if time.time() - began < 60 else 5)
        if self.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise Failed(f"The stack is {self.status}:\n{self.reasons()}")
        self.take(found)

    def reasons(self):
        events = aws("cloudformation", "describe-stack-events", "--stack-name", self.id)["StackEvents"]
        last = next((n for n, event in enumerate(events) if "User Initiated" in event.get("ResourceStatusReason", "")), 0)
        failed = [event for event in events[: last + 1] if "FAILED" in event["ResourceStatus"]]
        return "\n".join(f"  {e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in reversed(failed))

    def alias(self, name):
        alias = aws("lambda", "get-alias", "--function-name", self.function, "--name", name)
        return alias["FunctionVersion"]

    def version(self, number):
        """The configuration of a version."""
        if number == "$LATEST" or not number.isdigit():
            raise Failed(f"{number} is not the number of a version.")
        return aws("lambda", "get-function-configuration", "--function-name", self.function, "--qualifier", number)


def commit_of(version):
    return version.get("Description") or "unknown"


def variables_of(version):
    return version.get("Environment", {}).get("Variables", {})


def dry_run(version):
    return "CLOUDFLARE_ACCOUNT_ID" not in variables_of(version)


@functools.cache
def bucket():
    """Where the deployed files are kept, and the region."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = region or subprocess.run(["aws", "configure", "get", "region"], capture_output=True, text=True).stdout.strip()
    if given := os.environ.get("BUCKET"):
        return given, region
    return f"ecom-settings-exporter-{aws('sts', 'get-caller-identity')['Account']}-{region}", region


@functools.cache
def upload(*files):
    """Puts files, each a name and its content, into the bucket under names of their content. Returns their keys."""
    name, _ = bucket()
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"{hashlib.sha256(content).hexdigest()[:32]}-{file}" for file, content in files]
        for key, (_, content) in zip(keys, files):
            with open(os.path.join(folder, key), "wb") as file:
                file.write(content)
        copy = ["aws", "s3", "cp", "--recursive", "--only-show-errors", folder, f"s3://{name}/"]
        done = subprocess.run(copy, capture_output=True, text=True)
        if "NoSuchBucket" in done.stderr:
            say(f"creating the bucket {name}")
            subprocess.run(["aws", "s3", "mb", f"s3://{name}"], check=True, stdout=subprocess.DEVNULL)
            done = subprocess.run(copy, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(done.stderr.strip())
    return keys


def address(key):
    """The address of what was uploaded, as CloudFormation takes it."""
    name, region = bucket()
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://s3.{region}.amazonaws.com{suffix}/{name}/{key}"


def packaged():
    """The template with the zip and the definition that it names, which are uploaded; and the zip's commit."""
    try:
        with zipfile.ZipFile(BUILT) as opened:
            built, header = opened.read("target/lambda/commit").decode().strip(), opened.read("bootstrap")[18:20]
    except (OSError, KeyError) as error:
        raise Failed(f"{BUILT} is not there, or names no commit ({error}): make build") from error
    # The machine in the header of an ELF file.
    architecture = {b"\xb7\x00": "arm64", b"\x3e\x00": "x86_64"}.get(header, "unknown")
    commit, wanted = os.environ["COMMIT"], os.environ["ARCH"]
    if (built, architecture) != (commit, wanted):
        raise Failed(
            f"{BUILT} is of commit {built} for {architecture}, not of {commit} for {wanted}.\n"
            f"To deploy it all the same: make deploy COMMIT={built} ARCH={architecture} …"
        )
    template = Path("template.yaml").read_text()
    found = {ZIP: BUILT, DEFINITION: DEFINITION}
    keys = upload(*((os.path.basename(path), Path(at).read_bytes()) for path, at in found.items()))
    for path, key in zip(found, keys):
        template = template.replace(f"Uri: {path}\n", f"Uri: s3://{bucket()[0]}/{key}\n")
    return template, built, architecture


def who_hears(parameters):
    for name, what in (("AlarmTopicArn", "pages"), ("NoticeTopicArn", "notices")):
        if not parameters.get(name):
            say(f"NOBODY HEARS THE {what.upper()}: {name} is empty.")


def deploy():
    given = given_parameters()
    stack = Stack()
    first = not stack.id
    if first and given.get("RepairEnabled") == "true":
        raise Failed("The first deployment has no repairs. Look at an audit, then: make configure PARAMETERS=RepairEnabled=true")
    template, commit, architecture = packaged()
    own = {"Environment": ENVIRONMENT, "Architecture": architecture, "Commit": commit, "Release": now()}
    if not first and not stack.parameters.get("LiveVersion"):
        own["LiveVersion"] = stack.alias("live")
    say(f"{'creating' if first else 'updating'} the stack {STACK}")
    stack.update(template, {**given, **own})
    who_hears(stack.parameters)
    go_live_if_nothing_changes(stack, given, first)


def configure():
    given = given_parameters()
    if not given:
        raise Failed('make configure needs PARAMETERS="Name=value"')
    stack = Stack().must_exist()
    if unknown := set(given) - set(stack.parameters):
        raise Failed(f"{STACK} has no parameter {', '.join(sorted(unknown))}.")
    template, own = stack.template(), {}
    of_the_function = set(given) - NOT_OF_THE_FUNCTION
    if of_the_function:
        live, code = commit_of(stack.version(stack.alias("live"))), stack.parameters["Commit"]
        if live != code:
            raise Failed(
                f"Live is commit {live}, and the stack has the code of {code}: a version with another "
                f"{', '.join(sorted(of_the_function))} would have that code.\n"
                f"Deploy {live} first: git checkout {live} && make build && make deploy"
            )
        own["Release"] = now()
    stack.update(template, {**given, **own})
    if of_the_function:
        go_live_if_nothing_changes(stack, given, False)
    else:
        read_back(stack, stack.parameters["LiveVersion"], given)
    who_hears(stack.parameters)


def release(version=None):
    stack = Stack().must_exist()
    target = version or stack.alias("next")
    stack.version(target)
    go_live(stack, target)


def rollback(version=None):
    stack = Stack().must_exist()
    live, target = stack.alias("live"), version or stack.parameters.get("PreviousVersion")
    if not target:
        raise Failed("The stack knows no version that was live before. Name one: make rollback TO=n (make status lists them)")
    before, after = stack.version(live), stack.version(target)
    if not version and dry_run(after) and not dry_run(before):
        raise Failed(f"Version {target} is a dry run: KV would get no changes. To go there all the same: make rollback TO={target}")
    # At once. The stack's update makes it last.
    aws("lambda", "update-alias", "--function-name", stack.function, "--name", "live", "--function-version", target)
    say(f"{stack.function}: live is version {target} ({commit_of(after)}) instead of {live} ({commit_of(before)})")
    names = {name for name, value in variables_of(before).items() ^ variables_of(after).items()}
    if names:
        say(f"It has its own values of {', '.join(sorted(names))}.")
    go_live(stack, target, previous="")
    if commit_of(after) != stack.parameters["Commit"]:
        say(
            f"The state machine, the schedule, the mapping, the permissions, the alarms and the parameters stay those of "
            f"{stack.parameters['Commit']}.\n"
            f"To take them back too: git checkout {commit_of(after)} && make build && make deploy"
        )


def go_live(stack, target, previous=None, given=None):
    """Makes a version live, as the stack's own knowledge."""
    live = stack.parameters.get("LiveVersion") or stack.alias("live")
    own = {"LiveVersion": target}
    if previous is not None or target != live:
        own["PreviousVersion"] = live if previous is None else previous
    stack.update(stack.template(), own)
    read_back(stack, target, given or {})


def read_back(stack, target, given):
    """Says what is live, and fails if that is not what was asked for."""
    live = stack.alias("live")
    version = stack.version(live)
    variables = variables_of(version)
    say(f"\nLive is version {live} of commit {commit_of(version)}, with")
    for name, value in sorted(variables.items()):
        say(f"  {name}={value}")
    if given:
        say("The stack has")
    for name in sorted(given):
        say(f"  {name}={stack.parameters.get(name)}")
    wrong = [] if live == target == stack.parameters["LiveVersion"] else [f"version {live}, not {target}"]
    for name, value in given.items():
        variable = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        for place, held in ((name, stack.parameters.get(name)), (variable, variables.get(variable, value))):
            if held != value:
                wrong.append(f"{place} {held!r}, not {value!r}")
    if wrong:
        raise Failed("THIS IS NOT WHAT WAS ASKED FOR: " + "; ".join(wrong))


def go_live_if_nothing_changes(stack, given, first):
    """Makes the newest version live if KV would stay as it is, and otherwise says what would change."""
    live, newest = stack.parameters["LiveVersion"] or stack.alias("live"), stack.alias("next")
    if first:
        say("This is the first version: there is nothing to compare it with.")
        return go_live(stack, newest, previous="", given=given)
    if newest == live:
        return read_back(stack, live, given)
    stopped = f"Version {newest} is NOT LIVE. Live is still version {live}. To go live all the same: make release"
    for look in (1, 2):
        say(f"comparing what version {newest} would write with what version {live}, which is live, would write")
        try:
            of_live, of_next = reports(stack, newest)
        except Failed as failure:
            raise Failed(f"{failure}\n{stopped}") from failure
        if of_live.get("dry_run"):
            if stack.parameters.get("RepairEnabled") == "true":
                raise Failed(f"Version {live} is a dry run: there is nothing to compare with, and repairs are on.\n{stopped}")
            say(f"Version {live} is a dry run: there is nothing to compare with.")
            return go_live(stack, newest, given=given)
        if of_next.get("dry_run"):
            raise Failed(f"Version {newest} is a dry run: KV would get no changes any more.\n{stopped}")
        said, more = difference(of_live, of_next)
        if not said:
            say("It would change no more than the live one.")
            return go_live(stack, newest, given=given)
        # Changes that are under way look like differences, and are gone a minute later.
        if look == 1 and more <= 20:
            say(f"{more} keys differ. Looking again in a minute, because they may be changes on their way.")
            time.sleep(float(os.environ.get("SECOND_LOOK_AFTER", "60")))
            continue
        raise Failed(f"{said}\n{stopped}")


def reports(stack, newest):
    """An audit by the live version, and a preview by the newest one, at the same time."""
    def start(name, fields):
        return aws("stepfunctions", "start-execution", given={
            "stateMachineArn": stack.outputs["StateMachineArn"],
            "name": f"preview-{name}-{newest}-{int(time.time())}",
            "input": json.dumps({"reconcile": fields}),
        })["executionArn"]

    def follow(execution, progress):
        command = [OPERATOR, "follow", f"EXECUTION={execution}", "RAW=true"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=None if progress else subprocess.PIPE, text=True)

    audit, preview = start("live", {}), start("next", {"preview": True})
    followed = {"the audit by the live version": follow(audit, False), f"the preview by version {newest}": follow(preview, True)}
    found = []
    for what, process in followed.items():
        out, error = process.communicate()
        report = json.loads(out) if out.strip() else {}
        if process.returncode != 0 or not (report.get("complete") or report.get("dry_run")):
            raise Failed(f"{what} did not come to its end. {report.get('stopped', '')}{error or ''}")
        found.append(report)
    return found


def difference(of_live, of_next):
    """What the new version would change beyond what the live one would, for people; and how many keys."""
    lines, examples, more = [], [], 0
    for namespace, title in (("settings", "settings"), ("query_configs", "query configs")):
        before, after = of_live[namespace], of_next[namespace]
        for name, what in CHANGES.items():
            beyond = after.get(name, 0) - before.get(name, 0)
            if beyond > 0:
                more += beyond
                lines.append(f"  {title}: {after[name]} {what}, of {after.get('desired', 0)} (live: {before.get(name, 0)})")
                known = of_live.get("examples", {}).get(name, [])
                examples += [key for key in of_next.get("examples", {}).get(name, []) if key not in known]
    if not lines:
        return "", 0
    for path, count in sorted(of_next.get("differs", {}).items(), key=lambda entry: -entry[1]):
        lines.append(f"  differs at {path} in {count} of the keys that were looked at")
    for key in list(dict.fromkeys(examples))[:3]:
        lines.append(f"  make explain QUALIFIER=next KEY={shlex.quote(key).replace('$', '$$')}")
    return "The new version would change KV:\n" + "\n".join(lines), more


def now():
    return f"{int(time.time()):010d}"


def main():
    commands = {"deploy": deploy, "configure": configure, "release": release, "rollback": rollback}
    try:
        commands[sys.argv[1]](*[word for word in sys.argv[2:] if word])
    except Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
