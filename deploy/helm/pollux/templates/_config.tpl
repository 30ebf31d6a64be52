{{/* What the chart knows of the config. */}}

{{/* The config as YAML; empty if it is in an object of yours. */}}
{{- define "pollux.config" -}}
{{- if .Values.configFile }}
{{- .Values.configFile }}
{{- else if .Values.config }}
{{- toYaml .Values.config }}
{{- end }}
{{- end }}

{{/* A section of the config, as JSON; empty if the file has it without a content. A list of the root and the name. */}}
{{- define "pollux.section" -}}
{{- get (include "pollux.config" (index . 0) | fromYaml) (index . 1) | default dict | toJson }}
{{- end }}

{{/* A number of the section `pollux`: a list of the root, the key, and its default. */}}
{{- define "pollux.number" -}}
{{- $ours := include "pollux.section" (list (index . 0) "pollux") | fromJson -}}
{{- $found := hasKey $ours (index . 1) | ternary (get $ours (index . 1)) (index . 2) | toString -}}
{{- if not (regexMatch "^[0-9.e+]+$" $found) }}
{{- fail (printf "config.pollux.%s is %s, of which the chart can make no number: set terminationGracePeriodSeconds, or keda.jobsPerPod, yourself" (index . 1) $found) }}
{{- end }}
{{- $found }}
{{- end }}

{{/* From the beginning of the end to SIGKILL. 15 s are for the hand-over, and for handlers to end. */}}
{{- define "pollux.endsWithin" -}}
{{- if .Values.terminationGracePeriodSeconds }}
{{- .Values.terminationGracePeriodSeconds | int }}
{{- else }}
{{- $drain := addf (include "pollux.number" (list . "drain_grace_s" 5)) (include "pollux.number" (list . "drain_s" 30)) }}
{{- add .Values.preStopSeconds (ceil $drain) 15 }}
{{- end }}
{{- end }}

{{/* How many jobs a pod of a role shall have: a list of the root and the role's values. */}}
{{- define "pollux.jobsPerPod" -}}
{{- $role := index . 1 }}
{{- if $role.keda.jobsPerPod }}
{{- $role.keda.jobsPerPod | int }}
{{- else }}
{{- mulf (include "pollux.number" (list (index . 0) "worker_concurrency" 1000)) $role.processes 0.7 | ceil | int }}
{{- end }}
{{- end }}

{{/* The volume source of the config. */}}
{{- define "pollux.configSource" -}}
{{- $items := list (dict "key" .Values.existingConfig.key "path" "config.yaml") }}
{{- if .Values.existingConfig.secret }}
secret:
  secretName: {{ .Values.existingConfig.secret }}
  items: {{ toJson $items }}
{{- else if .Values.existingConfig.configMap }}
configMap:
  name: {{ .Values.existingConfig.configMap }}
  items: {{ toJson $items }}
{{- else }}
configMap:
  name: {{ include "pollux.fullname" . }}
{{- end }}
{{- end }}

{{/* What can't work, said before anything is installed. */}}
{{- define "pollux.check" -}}
{{- $config := include "pollux.config" . | fromYaml }}
{{- if hasKey $config "Error" }}
{{- fail (printf "configFile is no YAML: %s" $config.Error) }}
{{- end }}
{{- $theirs := or .Values.existingConfig.secret .Values.existingConfig.configMap }}
{{- if and .Values.config .Values.configFile }}
{{- fail "config and configFile are both set: set one of them" }}
{{- else if and $theirs $config }}
{{- fail "existingConfig and config (or configFile) are both set: set one of them" }}
{{- else if not (or $theirs $config) }}
{{- fail "there is no config: set config, or configFile (--set-file configFile=config.yaml), or existingConfig" }}
{{- end }}
{{- $unseen := or $theirs .Values.existingSecrets .Values.env }}
{{- $ours := include "pollux.section" (list . "pollux") | fromJson }}
{{- $general := include "pollux.section" (list . "general_settings") | fromJson }}
{{- if not (or $unseen .Values.secrets.LITELLM_MASTER_KEY $general.master_key $ours.keys $ours.allow_unauthenticated) }}
{{- fail "there is no key, and Pollux would refuse to serve other machines: set secrets.LITELLM_MASTER_KEY, or name a Secret that has it in existingSecrets, or set config.pollux.keys" }}
{{- end }}
{{- $cache := (include "pollux.section" (list . "litellm_settings") | fromJson).cache_params | default dict }}
{{- $store := .Values.store }}
{{- if not (or $unseen $store.url $store.existingSecret.name $store.embedded.enabled .Values.secrets.POLLUX_STORE $ours.store (eq ($cache.type | default "") "redis")) }}
{{- fail "there is no store: set store.url or store.existingSecret to a Redis, or store.embedded.enabled with layout: combined" }}
{{- end }}
{{- if $store.embedded.enabled }}
{{- if or $store.url $store.existingSecret.name }}
{{- fail "store.embedded is enabled, and another store is named: set one of them" }}
{{- else if or (ne .Values.layout "combined") (ne (int .Values.all.replicas) 1) .Values.all.autoscaling.enabled .Values.all.keda.enabled }}
{{- fail "the embedded store serves one pod: set layout: combined and all.replicas: 1, without autoscaling and keda" }}
{{- end }}
{{- end }}
{{- range $name := include "pollux.roles" . | splitList " " }}
{{- $role := get $.Values $name }}
{{- $keda := $role.keda | default dict }}
{{- if and $role.autoscaling.enabled $keda.enabled }}
{{- fail (printf "%s.autoscaling and %s.keda would both scale it: enable one of them" $name $name) }}
{{- end }}
{{- if and $keda.enabled (eq $keda.trigger "redis") }}
{{- if not $keda.redis.address }}
{{- fail (printf "%s.keda.redis.address is not set: the store as host:port" $name) }}
{{- else if lt (int $keda.minReplicas) 1 }}
{{- fail (printf "%s.keda.minReplicas is 0, and trigger: redis sees running jobs only, so nothing would begin: set 1, or trigger: prometheus" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
