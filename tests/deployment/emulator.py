"""Starts ministack, with what it lacks for these stacks patched in. Each patch says why.

usage: emulator.py, with GATEWAY_PORT, AUTH and FOLDER in the environment
A file `hold` in the folder makes updates that fail wait until it is gone; a file `swap` is put in the place of every
object that is put.
"""
import copy
import os
import time
from pathlib import Path

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import lambda_svc, s3
from ministack.services.cloudformation import engine, provisioners

FOLDER = Path(os.environ["FOLDER"])


def transform_with_parameters():
    """SAM gets no values of parameters, so that `AutoPublishCodeSha256: !Ref Release` would be no literal and
    no version would be published. AWS gives them."""
    from samtranslator.translator import transform

    original, engine_apply = transform.transform, engine._apply_transforms
    values = {}

    def with_values(template, _, loader):
        return original(template, dict(values), loader)

    def apply(template, provided_params=None, previous_params=None):
        values.clear()
        values.update(engine._transform_parameters(template, provided_params, previous_params))
        return engine_apply(template, provided_params, previous_params)

    transform.transform = with_values
    for module in (engine, *MODULES):
        if getattr(module, "_apply_transforms", None) is engine_apply:
            module._apply_transforms = apply


def query_definitions():
    """`AWS::Logs::QueryDefinition` is unknown. A saved query does nothing by itself."""
    handlers = provisioners._RESOURCE_HANDLERS
    handlers["AWS::Logs::QueryDefinition"] = {
        "create": lambda logical_id, props, stack: (f"{stack}-{logical_id}", {}),
        "update": lambda physical_id, old, new, stack: (physical_id, {}),
        "delete": lambda physical_id, props: None,
    }


def alarms_with_expressions():
    """Alarms on expressions are refused. None of them is evaluated here: the first metric stands for all."""
    original = provisioners._cw_metric_alarm_record

    def record(name, props):
        props = copy.copy(props)
        if metrics := props.pop("Metrics", None):
            stat = next(metric["MetricStat"] for metric in metrics if "MetricStat" in metric)
            props.update(MetricName=stat["Metric"]["MetricName"], Namespace=stat["Metric"]["Namespace"])
            props.update(Period=stat["Period"], Statistic="Maximum")
        return original(name, props)

    provisioners._cw_metric_alarm_record = record


def a_schedule_that_fails():
    """A deployment has to fail half-way: with a schedule of every six hours, after all else was updated."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Scheduler::Schedule"]
    on_a_thread = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda kind: kind == "AWS::Scheduler::Schedule" or on_a_thread(kind)

    def refusing(handler, place):
        def run(*args, **kwargs):
            if "0/6" in args[place]["ScheduleExpression"]:
                while (FOLDER / "hold").exists():
                    time.sleep(0.1)
                raise ValueError("this schedule makes the test's deployment fail")
            return handler(*args, **kwargs)
        return run

    handlers["create"] = refusing(handlers["create"], 1)
    handlers["update"] = refusing(handlers["update"], 2)


def buckets_of_others():
    """A bucket's owner is not compared with the one that a request expects. Those called `squatted...` are another
    account's, which lets everybody write."""
    original = s3.handle_request

    async def handle(method, path, headers, body, *args, **kwargs):
        expected = {name.lower(): value for name, value in headers.items()}.get("x-amz-expected-bucket-owner")
        if path.startswith("/squatted") and expected not in (None, "111111111111"):
            error = b"<Error><Code>AccessDenied</Code><Message>not the expected owner</Message></Error>"
            return 403, {"Content-Type": "application/xml"}, error
        if method == "PUT" and path.count("/") > 1 and (FOLDER / "swap").exists():
            await original(method, path, headers, body, *args, **kwargs)
            headers = {name: value for name, value in headers.items() if "checksum" not in name and "md5" not in name.lower()}
            body = (FOLDER / "swap").read_bytes()
        return await original(method, path, headers, body, *args, **kwargs)

    s3.handle_request = handle


def actions_of_lambda():
    """A call on one alias, on one mapping or on the concurrency is judged as another call."""
    original = iam_actions._lambda_action
    verbs = {"GET": "Get", "PUT": "Update", "DELETE": "Delete"}

    def action(method, path):
        parts = [part for part in path.split("/") if part]
        if parts[-2] == "aliases":
            return f"{verbs[method]}Alias"
        if parts[-2] == "event-source-mappings":
            return f"{verbs[method]}EventSourceMapping"
        if parts[-1] == "concurrency" and method != "PUT":
            return f"{verbs[method]}FunctionConcurrency"
        return original(method, path)

    iam_actions._lambda_action = action


def resources_of_permissions():
    """Some actions are authorized on `*`, or on a part of their resource's name. In AWS it is the whole resource."""
    original = iam_actions.extract_resource_arn

    def resource(service, method, path, headers, body, query_params, region, account):
        arn = original(service, method, path, headers, body, query_params, region, account)

        def parameter(name):
            value = query_params.get(name, "")
            return value if isinstance(value, str) else value[0]

        if service == "lambda" and (qualifier := parameter("Qualifier")):
            return f"{arn}:{qualifier}"
        if service == "cloudformation" and (name := parameter("StackName")):
            stack = _stacks.get(name.split("/")[1] if "/" in name else name, {})
            return name if "/" in name else stack.get("StackId", f"arn:aws:cloudformation:{region}:{account}:stack/{name}/none")
        if service == "scheduler" and "/schedules/" in path:
            return f"arn:aws:scheduler:{region}:{account}:schedule/default/{path.rsplit('/', 1)[1]}"
        if service == "logs" and ":log-group:" in arn and not arn.endswith(":*"):
            return f"{arn}:*"
        return arn

    iam_actions.extract_resource_arn = resource


def requests_count_as_encrypted():
    """This test speaks to it without TLS, which the queue's policy denies."""
    original = iam_evaluator._resolve_condition_key
    iam_evaluator._resolve_condition_key = lambda key, context: (
        "true" if key.lower() == "aws:securetransport" else original(key, context))


def function_with_stand_ins():
    """The gateway of this test speaks no TLS, and its KV has namespaces of names. The template takes only https
    and ids of Cloudflare."""
    original = lambda_svc._provided_worker_env
    stand_ins = {"https://keys.test": os.environ["GATEWAY"], "a" * 32: "settings", "b" * 32: "query-configs",
                 "c" * 32: "local-account"}

    def env(*args):
        variables = original(*args)
        for name, value in variables.items():
            if name.startswith(("API_KEYS_", "CLOUDFLARE_")):
                for real, stand_in in stand_ins.items():
                    value = value.replace(real, stand_in)
                variables[name] = value
        return variables

    lambda_svc._provided_worker_env = env


from ministack.services.cloudformation import _stacks, changesets, handlers, stacks  # noqa: E402

MODULES = (changesets, handlers, stacks)

if __name__ == "__main__":
    for patch in (transform_with_parameters, query_definitions, alarms_with_expressions, a_schedule_that_fails,
                  buckets_of_others, actions_of_lambda, resources_of_permissions, requests_count_as_encrypted,
                  function_with_stand_ins):
        patch()
    app.main()
