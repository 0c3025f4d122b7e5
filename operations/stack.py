#!/usr/bin/env python3
"""Deploys, configures, releases and rolls back the exporter of an environment.

There are two stacks: what runs (template.yaml), and what watches it (operations/alarms.yaml). The templates are always
this checkout's. Which version is live is the alias `live`, which no update of a stack moves. A version goes live
only if it would change no more in KV than the live one, or if somebody says so.

usage: stack.py deploy | configure | release [VERSION] | rollback [VERSION] | pause | resume
Reads PARAMETERS (Name=value ...) and PARAMETERS_FILE (one Name=value a line) from the environment.
"""
import base64
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from cloud import Failed, Function, Stack, aws, commit_of, plain, say

ENVIRONMENT = os.environ["ENVIRONMENT"]
NAME = os.environ.get("STACK") or f"{ENVIRONMENT}-ecom-settings-exporter"
ZIP = os.environ.get("ZIP") or "target/lambda/bootstrap/bootstrap.zip"
COMMIT = re.compile(r"[A-Za-z0-9._-]{1,40}")
# What a version does not hold: a change of these publishes none. A test compares them with the template.
NOT_OF_THE_FUNCTION = {
    "StreamEnabled", "BatchingWindowSeconds", "ParallelizationFactor", "RepairEnabled", "ReconcileEveryMinutes",
    "LogRetentionDays", "ReservedConcurrency", "KmsKeyArns",
}
SET_HERE = {"Environment", "Architecture", "Code", "Release", "StreamMappingId"}
# Classes of a report. More of one of them is a change, or a key whose change is not known.
CHANGES = {
    "missing": "missing keys that it would write",
    "stale": "keys that it would rewrite",
    "orphaned": "keys that it would delete",
    "conflicting": "keys that conflict",
    "rejected": "items that it rejects",
    "failed": "keys that it could not compare",
}


def given_parameters():
    """The parameters that the caller named, each of them whole."""
    try:
        words = shlex.split(os.environ.get("PARAMETERS", ""))
        if path := os.environ.get("PARAMETERS_FILE"):
            lines = [line.strip() for line in Path(path).read_text().splitlines()]
            words = [line for line in lines if line and not line.startswith("#")] + words
    except (OSError, ValueError) as error:
        raise Failed(f"The parameters can't be read: {error}") from error
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals:
            raise Failed(f"{plain(word)} is not Name=value. Quote a value with spaces: PARAMETERS=\"Name='a b'\"")
        if name in SET_HERE:
            raise Failed(f"{name} is set by make.")
    return dict(word.split("=", 1) for word in words)


def exporter():
    stack = Stack(NAME, "template.yaml")
    if not stack.id:
        raise Failed(f"There is no stack {NAME}: make deploy")
    return stack


def alarms():
    return Stack(f"{NAME}-alarms", "operations/alarms.yaml")


def function_of(stack):
    return Function(stack.outputs["FunctionName"])


def new_release(commit):
    return f"{int(time.time()):010d}-{commit}"


def variables_of(version):
    return version.get("Environment", {}).get("Variables", {})


def dry_run(version):
    return "CLOUDFLARE_ACCOUNT_ID" not in variables_of(version)


def built():
    """The zip's commit, architecture and digest."""
    try:
        with zipfile.ZipFile(ZIP) as opened:
            commit, header = opened.read("target/lambda/commit").decode().strip(), opened.read("bootstrap")[18:20]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise Failed(f"{ZIP} is not there, or names no commit ({error}): make build") from error
    # The machine in the header of an ELF file.
    architecture = {b"\xb7\x00": "arm64", b"\x3e\x00": "x86_64"}.get(header, "unknown")
    if not COMMIT.fullmatch(commit):
        raise Failed(f"{ZIP} is of {plain(commit)}, which is no name of a commit.")
    if commit.endswith("-dirty"):
        raise Failed(f"{ZIP} is of {commit}: nobody could find its sources again. Commit, and make build.")
    wanted = os.environ["COMMIT"], os.environ["ARCH"]
    if (commit, architecture) != wanted:
        raise Failed(
            f"{ZIP} is of commit {commit} for {architecture}, not of {plain(wanted[0])} for {plain(wanted[1])}.\n"
            f"To deploy it all the same: make deploy COMMIT={commit} ARCH={architecture} …"
        )
    return commit, architecture, hashlib.sha256(Path(ZIP).read_bytes())


def upload(digest):
    """Puts the zip into this account's bucket under the name of its digest, and returns its address."""
    account = aws("sts", "get-caller-identity")["Account"]
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = region or subprocess.run(["aws", "configure", "get", "region"], capture_output=True, text=True).stdout.strip()
    bucket, key = os.environ.get("BUCKET") or f"ecom-settings-exporter-{account}-{region}", f"{digest.hexdigest()}.zip"
    # A bucket's name is free for everybody in the world.
    put = ["s3api", "put-object", "--bucket", bucket, "--key", key, "--body", ZIP, "--expected-bucket-owner", account]
    try:
        aws(*put)
    except Failed as failure:
        if "AccessDenied" in str(failure):
            raise Failed(f"{failure}\nThe bucket {bucket} is not account {account}'s, or you may not write to it: BUCKET=…") from failure
        if "NoSuchBucket" not in str(failure):
            raise
        say(f"creating the bucket {bucket}")
        where = [] if region == "us-east-1" else ["--create-bucket-configuration", f"LocationConstraint={region}"]
        aws("s3api", "create-bucket", "--bucket", bucket, *where)
        aws(*put)
    return f"s3://{bucket}/{key}"


def update_alarms(stack, watches, given):
    """The second stack takes what it shares with the first from there."""
    shared = {name: value for name, value in {**stack.parameters, **stack.outputs}.items() if name in watches.known}
    watches.update({**given, **shared})


def check_names(given, stack, watches):
    if unknown := set(given) - set(stack.known) - set(watches.known):
        raise Failed(f"There is no parameter {', '.join(plain(name) for name in sorted(unknown))}.")


def deploy():
    given = given_parameters()
    commit, architecture, digest = built()
    stack, watches = Stack(NAME, "template.yaml"), alarms()
    first = not stack.id
    check_names(given, stack, watches)
    if first and given.get("RepairEnabled") == "true":
        raise Failed("The first deployment has no repairs. Look at an audit, then: make configure PARAMETERS=RepairEnabled=true")
    if missing := (stack.missing(given) | watches.missing({**given, **stack.known})) - SET_HERE:
        raise Failed(f"These parameters need a value: {', '.join(sorted(missing))}.")
    live = None if first else pinned(function_of(stack))
    stack.update({
        **given, "Environment": ENVIRONMENT, "Architecture": architecture, "Code": upload(digest),
        "Release": new_release(commit),
    })
    function = function_of(stack)
    newest = function.alias("next")["FunctionVersion"]
    # Before it is asked anything: somebody may have put another zip into the bucket meanwhile.
    if base64.b64decode(function.version(newest)["CodeSha256"]) != digest.digest():
        raise Failed(f"Version {newest} is NOT THE ZIP THAT WAS BUILT, and is not live. Who else writes to the bucket?")
    update_alarms(stack, watches, given)
    if first:
        say("This is the first version: there is nothing to compare it with.")
        return go_live(stack, function.alias("live"), newest, "the first version", given)
    go_live_if_nothing_changes(stack, live, newest, given)


def pinned(function):
    """`live`, which is $LATEST only if the first deployment did not come to its end."""
    live = function.alias("live")
    if live["FunctionVersion"] == "$LATEST":
        live = function.move_live(live, function.alias("next")["FunctionVersion"], "the first version")
    return live


def configure():
    given = given_parameters()
    if not given:
        raise Failed('make configure needs PARAMETERS="Name=value"')
    stack, watches = exporter(), alarms()
    check_names(given, stack, watches)
    for of_both in (stack, watches):
        # A first deployment may have ended between the two.
        if of_both.id:
            of_both.check_template(stack.parameters.get("Release", ""))
    live, own = pinned(function_of(stack)), {}
    of_the_function = set(given) & set(stack.known) - NOT_OF_THE_FUNCTION
    if of_the_function:
        is_live = commit_of(function_of(stack).version(live["FunctionVersion"]).get("Description", ""))
        code = commit_of(stack.parameters["Release"])
        if is_live != code:
            raise Failed(
                f"Live is commit {is_live}, and the stack has the code of {code}: a version with another "
                f"{', '.join(sorted(of_the_function))} would have that code.\n"
                f"Deploy {is_live} first: git checkout {is_live} && make build && make deploy"
            )
        own["Release"] = new_release(code)
    if set(given) & set(stack.known):
        stack.update({**given, **own})
    update_alarms(stack, watches, given)
    if of_the_function:
        function = function_of(stack)
        newest = function.alias("next")["FunctionVersion"]
        code, of_live = (function.version(number)["CodeSha256"] for number in (newest, live["FunctionVersion"]))
        if code != of_live:
            raise Failed(f"Version {newest} is NOT THE CODE THAT IS LIVE, and is not live. Who else deploys, or writes to the bucket?")
        return go_live_if_nothing_changes(stack, live, newest, given)
    read_back(stack, live["FunctionVersion"], given, {**stack.parameters, **watches.parameters})


def release(version=None):
    stack = exporter()
    function = function_of(stack)
    target = version or function.alias("next")["FunctionVersion"]
    function.version(target)
    go_live(stack, function.alias("live"), target)


def rollback(version=None):
    stack = exporter()
    function = function_of(stack)
    live = function.alias("live")
    target = version or (re.fullmatch(r"before it: ([0-9]+)", live.get("Description", "")) or [None, None])[1]
    if not target:
        raise Failed(f"The alias names no version that was live before. Name one: make rollback TO=n (aws lambda list-versions-by-function --function-name {function.name} lists them)")
    before, after = function.version(live["FunctionVersion"]), function.version(target)
    if not version and dry_run(after) and not dry_run(before):
        raise Failed(f"Version {target} is a dry run: KV would get no changes. To go there all the same: make rollback TO={target}")
    if stack.status.endswith("_IN_PROGRESS"):
        say("The stack is being updated. However that ends, it does not move live, and its deployment will not go live.")
    go_live(stack, live, target, f"rolled back from {live['FunctionVersion']}")
    names = {name for name, value in variables_of(before).items() ^ variables_of(after).items()}
    if names:
        say(f"It has its own values of {', '.join(sorted(names))}.")
    commit, code = commit_of(after.get("Description", "")), commit_of(stack.parameters["Release"])
    if commit != code:
        say(
            f"The state machine, the schedule, the mapping, the permissions, the alarms and the parameters stay at {code}.\n"
            f"To take them back too: git checkout {commit} && make build && make deploy"
        )


def go_live(stack, live, target, note=None, given=None):
    """Makes a version live, and notes in the alias which one was before it."""
    if live["FunctionVersion"] != target:
        function_of(stack).move_live(live, target, note or f"before it: {live['FunctionVersion']}")
    read_back(stack, target, given or {}, stack.parameters)


def read_back(stack, target, given, parameters):
    """Says what is live, and fails if that is not what was asked for."""
    alias = function_of(stack).alias("live")
    live = alias["FunctionVersion"]
    version = function_of(stack).version(live)
    variables = variables_of(version)
    say(f"\nLive is version {live} of commit {commit_of(version.get('Description', ''))}, with")
    for name, value in sorted(variables.items()):
        say(f"  {name}={plain(value)}")
    wrong = [] if live == target else [f"version {live}, not {target}"]
    if weights := alias.get("RoutingConfig", {}).get("AdditionalVersionWeights"):
        wrong.append(f"a part of the invocations goes to {', '.join(sorted(weights))}")
    if given:
        say("The stacks have")
    for name, value in sorted(given.items()):
        variable = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        has = parameters.get(name, value)
        say(f"  {name}={plain(has)}")
        for place, held in ((name, has), (variable, variables.get(variable, value))):
            if held != value:
                wrong.append(f"{place} {plain(held)}, not {plain(value)}")
    if wrong:
        raise Failed("THIS IS NOT WHAT WAS ASKED FOR: " + "; ".join(wrong))


def go_live_if_nothing_changes(stack, live, newest, given):
    """Makes the newest version live if KV would stay as it is, and otherwise says what would change."""
    before = live["FunctionVersion"]
    if newest == before:
        return read_back(stack, before, given, stack.parameters)
    stopped = f"Version {newest} is NOT LIVE. Live is still version {before}. To go live all the same: make release"
    for look in (1, 2):
        say(f"comparing what version {newest} would write with what version {before}, which is live, would write")
        try:
            of_live, of_next = reports(stack, newest)
        except Failed as failure:
            raise Failed(f"{failure}\n{stopped}") from failure
        # The preview was by the version that is the newest.
        if (now := function_of(stack).alias("next")["FunctionVersion"]) != newest:
            raise Failed(f"Somebody has published version {now} meanwhile.\n{stopped} TO={newest}")
        if of_live.get("dry_run"):
            if stack.parameters.get("RepairEnabled") == "true":
                raise Failed(f"Version {before} is a dry run: there is nothing to compare with, and repairs are on.\n{stopped}")
            say(f"Version {before} is a dry run: there is nothing to compare with.")
            return go_live(stack, live, newest, given=given)
        if of_next.get("dry_run"):
            raise Failed(f"Version {newest} is a dry run: KV would get no changes any more.\n{stopped}")
        said, more = difference(of_live, of_next)
        if not said:
            say("It would change no more than the live one.")
            return go_live(stack, live, newest, given=given)
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

    def report(what, execution):
        while (found := aws("stepfunctions", "describe-execution", "--execution-arn", execution))["status"] == "RUNNING":
            time.sleep(1)
        last = json.loads(found.get("output") or "{}")
        if not (last.get("complete") or last.get("dry_run")):
            why = last.get("stopped") or found.get("cause") or found["status"]
            raise Failed(f"{what} did not come to its end: {plain(why)}")
        return last

    audit, preview = start("live", {}), start("next", {"preview": True})
    return report("The audit by the live version", audit), report(f"The preview by version {newest}", preview)


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
    # A key that a terminal can't show can't be copied from it.
    for key in [key for key in dict.fromkeys(examples) if key.isprintable()][:3]:
        lines.append(f"  make explain QUALIFIER=next KEY={shlex.quote(key)}")
    return "The new version would change KV:\n" + "\n".join(lines), more


def schedule(state):
    """Switches the schedule of reconcile. An update of a schedule names all that it has."""
    name = f"{ENVIRONMENT}-ecom-settings-exporter-reconcile"
    found = aws("scheduler", "get-schedule", "--name", name)
    kept = {key: value for key, value in found.items() if key not in ("Arn", "CreationDate", "LastModificationDate")}
    aws("scheduler", "update-schedule", given={**kept, "State": state})
    say(f"The schedule {name} is {state}.")
    if state == "DISABLED":
        say("What is running goes on: make stop-reconciles. A change of the schedule by a deployment enables it again.")


def main():
    commands = {
        "deploy": deploy, "configure": configure, "release": release, "rollback": rollback,
        "pause": functools.partial(schedule, "DISABLED"), "resume": functools.partial(schedule, "ENABLED"),
    }
    try:
        commands[sys.argv[1]](*[word for word in sys.argv[2:] if word])
    except Failed as failure:
        sys.stdout.flush()
        sys.exit("\n".join(plain(line) for line in str(failure).split("\n")))
    except KeyboardInterrupt:
        sys.exit("\nStopped. What AWS has begun goes on, an update of a stack too. What is live: make status")


if __name__ == "__main__":
    main()
