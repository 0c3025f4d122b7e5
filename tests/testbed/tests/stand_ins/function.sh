#!/bin/bash
# A function in plain bash. It answers each payload with itself, except those named below.
# With MODE=exit it does not start.

api() { # method path body
    exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API/:/\/}"
    printf '%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: local\r\nConnection: close\r\n' "$1" "$2" >&3
    printf 'Content-Length: %s\r\n\r\n%s' "${#3}" "$3" >&3
    headers=
    while IFS= read -r line <&3 && [ "$line" != $'\r' ]; do headers+="${line%$'\r'}"$'\n'; done
    IFS= read -r -d '' body <&3
    exec 3<&-
}

[ "$MODE" != exit ] || { echo 'panicked at start' >&2; exit 101; }

while api GET invocation/next; do
    id=$(grep -i '^lambda-runtime-aws-request-id:' <<<"$headers")
    id=${id#*: }
    echo "got $body"
    case $body in
    '"crash"') echo 'about to crash' >&2; exit 3 ;;
    '"hang"') exec sleep 600 ;;
    *) api POST "invocation/$id/response" "$body" ;;
    esac
    echo "done with $id"
done
