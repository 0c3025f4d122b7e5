"""Starts ministack, with what it lacks for this stack patched in. Each patch says why.

usage: emulator.py, with GATEWAY_PORT and AUTH in the environment
"""
import copy
import os

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import lambda_svc
from ministack.services.cloudformation import engine, provisioners


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
    """Alarms on expressions are refused. None of them is evaluated here: the first metric stands for all.
    An alarm on the topic `fails` is refused, so that a deployment can fail half-way."""
    original = provisioners._cw_metric_alarm_record

    def record(name, props):
        props = copy.copy(props)
        if any(topic.endswith(":fails") for topic in props.get("AlarmActions", [])):
            raise ValueError("this topic makes the test's deployment fail")
        if metrics := props.pop("Metrics", None):
            stat = next(metric["MetricStat"] for metric in metrics if "MetricStat" in metric)
            props.update(MetricName=stat["Metric"]["MetricName"], Namespace=stat["Metric"]["Namespace"])
            props.update(Period=stat["Period"], Statistic="Maximum")
        return original(name, props)

    provisioners._cw_metric_alarm_record = record


def permission_for_an_alias():
    """An invocation of an alias is authorized as one of the function. In AWS the alias is the resource."""
    original = iam_actions.extract_resource_arn

    def resource(service, method, path, headers, body, query_params, *args):
        arn = original(service, method, path, headers, body, query_params, *args)
        qualifier = query_params.get("Qualifier") if path.endswith("/invocations") else None
        if isinstance(qualifier, list):
            qualifier = qualifier[0]
        return f"{arn}:{qualifier}" if service == "lambda" and qualifier else arn

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


from ministack.services.cloudformation import changesets, handlers, stacks  # noqa: E402

MODULES = (changesets, handlers, stacks)

if __name__ == "__main__":
    for patch in (transform_with_parameters, query_definitions, alarms_with_expressions, permission_for_an_alias,
                  requests_count_as_encrypted, function_with_stand_ins):
        patch()
    app.main()
