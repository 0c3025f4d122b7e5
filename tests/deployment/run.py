"""Deploys the function into ministack, with permissions enforced, and works with it as people do.

usage: run.py, with SIZE indexes (100 by default) and OPERATOR, BOOTSTRAP and TESTBED in the environment
What it needs is in requirements.txt. What the emulator lacks, and is patched, is in emulator.py.
"""
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parents[2]
SIZE = int(os.environ.get("SIZE", "100"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NAME = "test-ecom-settings-exporter"
# The emulator refuses this schedule, after all else was updated.
FAILS = "ReconcileEveryMinutes=360"
URL = "https://keys.test/{cell}/key?a={system_account_id}&b=$x'y"
BEGAN = time.time()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def step(title):
    print(f"[{time.time() - BEGAN:5.0f} s] {title}", flush=True)


def until(what, seconds=300):
    end = time.time() + seconds
    while not (found := what()):
        assert time.time() < end, "not in time"
        time.sleep(0.2)
    return found


class Gateway(http.server.BaseHTTPRequestHandler):
    """The API keys service: each cell has keys of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        cell, account = re.match(r"/([^/]+)/key\?a=([^&]+)&b=.x.*y$", self.path).groups()
        body = json.dumps({"api_key": f"{cell}-{account}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, *_):
        """A client that has gone is no error of the test."""


class World:
    """The emulator, KV and the gateway, and what is in them."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        gateway = Server(("127.0.0.1", 0), Gateway)
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        ports = {name: free_port() for name in ("kv", "dynamodb", "lambda", "api-keys", "secrets", "faults")}
        testbed = os.environ.get("TESTBED", TARGET / "debug/testbed")
        flags = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
        self.start("stand-ins", [testbed, "up", "--no-function", *flags], os.environ)
        self.kv = f"http://127.0.0.1:{ports['kv']}/client/v4/accounts/{{account_id}}/storage/kv/namespaces/{{namespace_id}}"
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        # A shell of `make local-env` asks the local stack.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLOUDFLARE_"))}
        self.environment = {
            **inherited, "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ENVIRONMENT": "test", "ARCH": "x86_64", "SECOND_LOOK_AFTER": "1", "MAKEFLAGS": "",
            "OPERATOR": os.environ.get("OPERATOR") or str(TARGET / "debug/operator"),
        }
        emulator = [sys.executable, ROOT / "tests/deployment/emulator.py"]
        self.start("emulator", emulator, {
            **self.environment, "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "AUTH": "true", "LOG_LEVEL": "WARNING",
            "GATEWAY": f"http://127.0.0.1:{gateway.server_port}", "CLOUDFLARE_KV_URL": self.kv, "TMPDIR": str(folder), "FOLDER": str(folder),
        })
        self.admin = self.session("test", "test")

    def start(self, name, command, environment):
        log = open(self.folder / f"{name}.log", "w")
        self.processes.append(subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=log, stderr=log, start_new_session=True))

    def end(self):
        for process in self.processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()

    def answers(self):
        try:
            self.listing("settings")
            return self.aws("sts").get_caller_identity()
        except Exception:
            return False

    def session(self, key, secret):
        return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")

    def aws(self, service):
        return self.admin.client(service, endpoint_url=self.endpoint)

    def begin(self, *words, **environment):
        """What a person types."""
        return subprocess.Popen(["make", "--no-print-directory", *words], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**self.environment, **environment})

    def make(self, *words, fails=False, **environment):
        """The same to its end. Returns what it said."""
        return self.ended(self.begin(*words, **environment), fails)

    def refuses(self, why, *words, **environment):
        """What a person types that fails, and says why. Returns all that it said."""
        said = self.make(*words, fails=True, **environment)
        assert why in said, said
        return said

    def report(self, *words):
        """The JSON among what it says to people."""
        [report] = [line for line in self.make(*words, "RAW=true").splitlines() if line.startswith("{")]
        return json.loads(report)

    def ended(self, made, fails=False):
        said, _ = made.communicate()
        assert (made.returncode != 0) == fails, f"{made.args}: {made.returncode}\n{said}"
        assert "Traceback" not in said and all(char == "\n" or char.isprintable() for char in said), said
        return said

    def built(self, commit, change=lambda binary: binary):
        """What `make build` leaves, of another commit."""
        binary = Path(os.environ.get("BOOTSTRAP", TARGET / "debug/bootstrap"))
        stripped = self.folder / "bootstrap"
        if not stripped.exists():
            subprocess.run(["strip", "-o", stripped, binary], check=True)
        path = self.folder / f"{commit}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o755 << 16
            packed.writestr(entry, change(stripped.read_bytes()))
            packed.writestr("target/lambda/commit", commit + "\n")
        return {"ZIP": str(path), "COMMIT": commit}

    def kv_call(self, namespace, path, body=None):
        url = self.kv.replace("{account_id}", "local-account").replace("{namespace_id}", namespace) + path
        request = urllib.request.Request(url, data=body and json.dumps(body).encode())
        request.add_header("Authorization", "Bearer local-token")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def listing(self, namespace):
        keys, cursor = [], ""
        while True:
            page = self.kv_call(namespace, f"/keys?limit=1000&cursor={cursor}")
            keys += page["result"]
            cursor = page["result_info"].get("cursor")
            if not cursor:
                return keys

    def kv_state(self):
        """All of KV: keys, values and metadata."""
        state = {}
        for namespace in ("settings", "query-configs"):
            names = [key["name"] for key in self.listing(namespace)]
            for start in range(0, len(names), 100):
                held = self.values(namespace, names[start:start + 100])
                state |= {(namespace, key): value for key, value in held.items()}
        return state

    def values(self, namespace, keys):
        """What KV holds under these keys, with metadata."""
        return self.kv_call(namespace, "/bulk/get", {"keys": keys, "withMetadata": True})["result"]["values"]

    def value(self, key):
        held = self.values("settings", [key])[key]
        return held and json.loads(held["value"])

    def alias(self, name="live"):
        return self.aws("lambda").get_alias(FunctionName=NAME, Name=name)

    def live(self):
        return self.alias()["FunctionVersion"]

    def stack(self, name=NAME):
        return self.aws("cloudformation").describe_stacks(StackName=name)["Stacks"][0]

    def output(self, name):
        return next(output["OutputValue"] for output in self.stack()["Outputs"] if output["OutputKey"] == name)

    def variables(self):
        return self.aws("lambda").get_function_configuration(FunctionName=NAME, Qualifier="live")["Environment"]["Variables"]

    def parameter(self, name, stack=NAME):
        return {p["ParameterKey"]: p["ParameterValue"] for p in self.stack(stack)["Parameters"]}[name]

    def put(self, *items):
        table = self.admin.resource("dynamodb", endpoint_url=self.endpoint).Table("test-EcomIndexSettingsTable")
        with table.batch_writer() as writer:
            for item in items:
                writer.put_item(Item=item)

    def executions(self):
        """The state machine's executions: their states, by their ARNs."""
        listed = self.aws("stepfunctions").list_executions(stateMachineArn=self.output("StateMachineArn"))["executions"]
        return {one["executionArn"]: one["status"] for one in listed}

    def executed_since(self, before, count):
        """Waits for executions to succeed. Returns the description of each, by its ARN."""
        def succeeded():
            found = [arn for arn, state in self.executions().items() if arn not in before and state == "SUCCEEDED"]
            return found if len(found) >= count else None

        return {arn: self.aws("stepfunctions").describe_execution(executionArn=arn) for arn in until(succeeded)}

    def remove(self, account):
        self.aws("dynamodb").delete_item(TableName="test-EcomIndexSettingsTable", Key={"pk": {"S": account}, "sk": {"S": "INDEX#main"}})


def index(number, **more):
    return {"pk": f"a{number}", "sk": "INDEX#main", "index_endpoint": "https://i.example", "shop_id": f"{number}.example",
            "pixel_id": f"px-{number}", **more}


def account_with_a_table(world):
    table = world.aws("dynamodb").create_table(
        TableName="test-EcomIndexSettingsTable", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})["TableDescription"]
    world.aws("secretsmanager").create_secret(Name="test/CloudFlareApiToken", SecretString="local-token")
    topics = [world.aws("sns").create_topic(Name=name)["TopicArn"] for name in ("pages", "notices")]
    world.put(*(index(number) for number in range(SIZE)))
    parameters = world.folder / "test.parameters"
    parameters.write_text("\n".join([
        "# The parameters of this environment", f"SettingsStreamArn={table['LatestStreamArn']}",
        f"CloudflareAccountId={'c' * 32}", f"CloudflareKvNamespaceId={'a' * 32}", f"CloudflareKvQcfgNamespaceId={'b' * 32}",
        f"ApiKeysUrl={URL}", "DefaultCell=main", f"AlarmTopicArn={topics[0]}", "BatchingWindowSeconds=0",
        f"NoticeTopicArn={topics[1]}"]))
    world.parameters = {"PARAMETERS_FILE": str(parameters)}


def first_deployment(world):
    world.good = world.built("good")
    world.refuses("first deployment has no repairs", "deploy", "PARAMETERS=RepairEnabled=true", **world.good, **world.parameters)
    lacking = world.folder / "lacking.parameters"
    lacking.write_text(Path(world.parameters["PARAMETERS_FILE"]).read_text().rsplit("\n", 1)[0])
    world.refuses("These parameters need a value: NoticeTopicArn.", "deploy", **world.good, PARAMETERS_FILE=str(lacking))
    world.refuses("nobody could find its sources", "deploy", **world.built("good-dirty"), **world.parameters)
    squatted = {"BUCKET": "squatted-deployments"}
    world.session("111111111111", "test").client("s3", endpoint_url=world.endpoint).create_bucket(Bucket=squatted["BUCKET"])
    world.refuses("is not account 000000000000's", "deploy", **world.good, **world.parameters, **squatted)
    world.refuses("this schedule makes", "deploy", f"PARAMETERS={FAILS}", **world.good, **world.parameters)
    world.make("deploy", "PARAMETERS=CloudflareAccountId=dry-run", **world.good, **world.parameters)
    assert world.live() == "1" and "CLOUDFLARE_ACCOUNT_ID" not in world.variables()
    said = world.make("deploy", **world.good, **world.parameters)
    assert "is a dry run: there is nothing to compare with" in said, said
    assert world.parameter("ApiKeysUrl") == URL and world.variables()["API_KEYS_URL"] == URL
    world.refuses("is a dry run", "rollback")
    assert (world.live(), world.parameter("RepairEnabled")) == ("2", "false")
    names = [alarm["AlarmName"] for alarm in world.aws("cloudwatch").describe_alarms()["MetricAlarms"]]
    assert len(names) == 18 and f"{NAME}-removals-held" in names, names


def audit_and_repair(world):
    audit = world.report("reconcile")
    assert audit["settings"]["missing"] == 2 * SIZE, audit
    repair = world.report("reconcile", "APPLY=true")
    assert repair["complete"] and repair["settings"]["written"] == 2 * SIZE, repair
    assert world.value("7.example")["marqo_api_key"] == "main-a7"


def stream_and_removal(world):
    world.put(index("new", shop_id="new.example"))
    until(lambda: world.value("new.example") and world.value("anew-main"))
    world.put({"pk": "anew", "sk": "INDEX#DEFAULT_CONFIG"}, {"pk": "anew", "sk": "INDEX#main#QUERY#shoes", "limit": 3})
    until(lambda: world.listing("query-configs"))
    world.remove("anew")
    until(lambda: not world.value("new.example") and not world.value("anew-main"))
    said = world.make("explain", "KEY=7.example")
    assert "right" in said and "a7" in said, said


def release_that_changes_bytes(world):
    def change(binary):
        # The value no longer has the field, as if somebody had misspelt it.
        assert b"pixel_id" in binary
        return binary.replace(b"pixel_id", b"pixel_ix")

    before, bad = world.kv_state(), world.built("bad", change)
    began = time.time()
    said = world.refuses(f"{2 * SIZE} keys that it would rewrite, of {2 * SIZE}", "deploy", **bad, **world.parameters)
    assert "make release" in said, said
    [hint, *others] = re.findall("make (explain) (QUALIFIER=next) (KEY=.*)", said)
    assert len(others) == 2 and "pixel_id" in world.make(*hint), said
    assert world.live() == "2" and world.kv_state() == before
    step(f"... refused after {time.time() - began:.0f} s, and KV with {len(before)} keys is byte for byte what it was")
    world.make("release")
    assert (world.live(), world.alias()["Description"]) == ("3", "before it: 2")
    world.put(index("bad"))
    until(lambda: world.value("bad.example"))
    assert "pixel_id" not in world.value("bad.example")


def rollback_that_lasts(world):
    """During an update that fails: nothing moves it back, and the deployment does not go live either."""
    hold = world.folder / "hold"
    hold.touch()
    deploying = world.begin("deploy", f"PARAMETERS={FAILS}", **world.built("worse"), **world.parameters)
    # The newest version is published, and the update goes on.
    until(lambda: world.alias("next")["FunctionVersion"] == "4")
    began = time.time()
    said = world.make("rollback")
    assert world.stack()["StackStatus"] == "UPDATE_IN_PROGRESS" and world.live() == "2", said
    assert "The stack is being updated. However that ends" in said and "git checkout good" in said, said
    step(f"... rolled back after {time.time() - began:.0f} s, while the stack is updated")
    hold.unlink()
    said = world.ended(deploying, fails=True)
    assert "this schedule makes" in said and world.stack()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", said
    assert (world.live(), world.alias("next")["FunctionVersion"]) == ("2", "3"), said
    world.refuses("Name one: make rollback TO=n", "rollback")
    world.refuses("Deploy good first", "configure", "PARAMETERS=RemovalsUpTo=50")
    world.make("configure", "PARAMETERS=ProxyCacheTtl=30")
    assert (world.live(), world.parameter("ProxyCacheTtl", f"{NAME}-alarms")) == ("2", "30")
    world.remove("abad")
    until(lambda: not world.value("bad.example"))


def rollback_beside_a_deployment(world):
    """A deployment that compares while somebody moves `live` does not go live."""
    deploying = world.begin("deploy", **world.good, **world.parameters)
    newest = until(lambda: (version := world.alias("next")["FunctionVersion"]) != "3" and version)
    world.make("rollback", "TO=1")
    assert world.live() == "1"
    said = world.ended(deploying, fails=True)
    assert f"Somebody else has moved live meanwhile. Version {newest} was not made live" in said, said
    assert world.live() == "1"
    world.make("rollback", "TO=2")


def zip_that_was_swapped(world):
    """Between its upload and CloudFormation's look at it"""
    swap = world.folder / "swap"
    swap.write_bytes(Path(world.built("evil", lambda binary: binary + b" ")["ZIP"]).read_bytes())
    said = world.refuses("NOT THE ZIP THAT WAS BUILT", "deploy", **world.built("fresh"), **world.parameters)
    swap.unlink()
    assert "comparing" not in said and world.live() == "2", said


def template_that_was_poisoned(world):
    """A resource that is created when somebody else configures the stack. It took a right that on call no longer has."""
    stacks = world.aws("cloudformation")
    kept = [{"ParameterKey": p["ParameterKey"], "UsePreviousValue": True} for p in world.stack()["Parameters"]]
    template = (ROOT / "template.yaml").read_text().replace("\nResources:\n", """
Resources:
  Hidden:
    Type: AWS::IAM::Role
    Condition: RepairsAreOn
    Properties:
      ManagedPolicyArns: [arn:aws:iam::aws:policy/AdministratorAccess]
      AssumeRolePolicyDocument: { Statement: [{ Effect: Allow, Principal: { AWS: "*" }, Action: "sts:AssumeRole" }] }
""").replace("\nConditions:\n", "\nConditions:\n  RepairsAreOn: !Equals [!Ref RepairEnabled, \"true\"]\n")
    stacks.update_stack(StackName=NAME, TemplateBody=template, Parameters=kept, Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"])
    until(lambda: world.stack()["StackStatus"] == "UPDATE_COMPLETE")
    world.refuses("another template than this checkout", "configure", "PARAMETERS=RepairEnabled=true")
    assert world.parameter("RepairEnabled") == "false"
    began = time.time()
    said = world.make("deploy", "PARAMETERS=RepairEnabled=true", **world.good, **world.parameters)
    assert "change no more than the live one" in said and world.parameter("RepairEnabled") == "true", said
    step(f"... a release without a difference is live after {time.time() - began:.0f} s")
    resources = stacks.list_stack_resources(StackName=NAME)["StackResourceSummaries"]
    assert "Hidden" not in [resource["LogicalResourceId"] for resource in resources], resources


def configuration(world):
    before = world.live()
    world.refuses(f"{2 * SIZE} keys that it would rewrite", "configure", "PARAMETERS=DefaultCell=other")
    assert world.live() == before
    world.make("configure", "PARAMETERS=DefaultCell=main RemovalsUpTo=50")
    assert world.live() != before and world.variables()["REMOVALS_UP_TO"] == "50"
    assert world.variables()["API_KEYS_URL"] == URL
    before = world.live()
    world.make("configure", "PARAMETERS=ReconcileEveryMinutes=30")
    assert world.live() == before, "the schedule's parameter publishes no version"


def two_reconciles_at_once(world):
    for _ in range(3):
        before = world.executions()
        start = {"stateMachineArn": world.output("StateMachineArn"), "input": json.dumps({"reconcile": {}})}
        threads = [threading.Thread(target=world.aws("stepfunctions").start_execution, kwargs=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        ended = world.executed_since(before, 2)
        outputs = [json.loads(one["output"]) for one in ended.values()]
        # The list may lack the other one for a moment, so both may run, but they never leave to each other.
        assert any("settings" in output for output in outputs), outputs
        assert all(output["left_to"] in ended for output in outputs if "left_to" in output), outputs


def schedule(world):
    scheduler, before = world.aws("scheduler"), world.executions()
    found = scheduler.get_schedule(Name=f"{NAME}-reconcile")
    assert found["ScheduleExpression"] == "cron(0/30 * * * ? *)"
    # Nobody waits a quarter of an hour: the same target, by the same role, as if a minute had passed.
    again = {"Name": found["Name"], "Target": found["Target"], "FlexibleTimeWindow": found["FlexibleTimeWindow"]}
    scheduler.update_schedule(ScheduleExpression="rate(1 minute)", **again)
    [described, *_] = world.executed_since(before, 1).values()
    scheduler.update_schedule(ScheduleExpression=found["ScheduleExpression"], **again)
    assert json.loads(described["input"]) == {"reconcile": {"apply": True}}, described
    assert json.loads(described["output"])["apply"], described


def people_on_call(world):
    """What they may do, and that nothing of it makes them deployers."""
    policy = world.output("OnCallPolicyArn")
    iam = world.aws("iam")
    iam.create_user(UserName="on-call")
    key = iam.create_access_key(UserName="on-call")["AccessKey"]
    who = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    world.refuses("AccessDenied", "explain", "KEY=7.example", **who)
    iam.attach_user_policy(UserName="on-call", PolicyArn=policy)
    world.make("release", "TO=2", **who)
    for words in (["explain", "KEY=7.example"], ["re-export", "ACCOUNT=a7", "INDEX=main"], ["reconcile"], ["follow"],
                  ["stop-reconciles"], ["status"], ["rollback"], ["pause"], ["resume"]):
        said = world.make(*words, **who)
        assert "AccessDenied" not in said, said
    for words in (["deploy"], ["configure", "PARAMETERS=RepairEnabled=false"]):
        world.refuses("AccessDenied", *words, **who, **world.built("good"))
    session = world.session(key["AccessKeyId"], key["SecretAccessKey"])

    def client(service):
        return session.client(service, endpoint_url=world.endpoint)

    client("secretsmanager").put_secret_value(SecretId="test/CloudFlareApiToken", SecretString="local-token")
    client("lambda").update_event_source_mapping(UUID=world.output("StreamMappingId"), Enabled=True)
    client("lambda").put_function_concurrency(FunctionName=NAME, ReservedConcurrentExecutions=5)
    client("lambda").delete_function_concurrency(FunctionName=NAME)
    other = world.aws("lambda").create_function(
        FunctionName="other", Runtime="provided.al2023", Handler="b", Role=world.output("RoleArn"),
        Code={"ZipFile": Path(world.built("good")["ZIP"]).read_bytes()})["FunctionName"]
    world.aws("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps(
        {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}))
    template = (ROOT / "template.yaml").read_text()
    bucket = next(bucket["Name"] for bucket in world.aws("s3").list_buckets()["Buckets"] if bucket["Name"].startswith("ecom"))
    [uploaded, *_] = world.aws("s3").list_objects_v2(Bucket=bucket)["Contents"]
    for service, action, arguments in (
        ("cloudformation", "update_stack", {"StackName": NAME, "TemplateBody": template}),
        ("cloudformation", "update_stack", {"StackName": f"{NAME}-alarms", "TemplateBody": template}),
        ("cloudformation", "create_change_set", {"StackName": NAME, "ChangeSetName": "c", "TemplateBody": template}),
        ("cloudformation", "get_template", {"StackName": NAME}),
        ("cloudformation", "describe_stacks", {"StackName": "other"}),
        ("s3", "put_object", {"Bucket": bucket, "Key": uploaded["Key"], "Body": b"evil"}),
        ("s3", "get_object", {"Bucket": bucket, "Key": uploaded["Key"]}),
        ("lambda", "update_function_code", {"FunctionName": NAME, "ZipFile": b"evil"}),
        ("lambda", "update_function_configuration", {"FunctionName": NAME, "MemorySize": 512}),
        ("lambda", "get_function", {"FunctionName": other}),
        ("lambda", "get_function_configuration", {"FunctionName": other}),
        ("lambda", "invoke", {"FunctionName": other}),
        ("secretsmanager", "get_secret_value", {"SecretId": "test/CloudFlareApiToken"}),
        ("iam", "create_role", {"RoleName": "r", "AssumeRolePolicyDocument": "{}"}),
        ("dynamodb", "put_item", {"TableName": "test-EcomIndexSettingsTable", "Item": {"pk": {"S": "a"}, "sk": {"S": "b"}}}),
    ):
        try:
            getattr(client(service), action)(**arguments)
        except ClientError as error:
            assert error.response["Error"]["Code"].startswith("AccessDenied"), (action, error)
        else:
            raise AssertionError(f"on call may {action} {arguments}")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    folder = Path(tempfile.mkdtemp())
    world = World(folder)
    try:
        until(world.answers)
        for action in (account_with_a_table, first_deployment, audit_and_repair, stream_and_removal, release_that_changes_bytes,
                       rollback_that_lasts, rollback_beside_a_deployment, zip_that_was_swapped, template_that_was_poisoned,
                       configuration, two_reconciles_at_once, schedule, people_on_call):
            step(action.__name__.replace("_", " "))
            action(world)
        step("done")
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        raise
    finally:
        world.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
