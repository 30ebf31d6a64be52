{{/* The template of a role's pods: a list of the root, the role's name, and the role's values. */}}
{{- define "pollux.pod" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $role := index . 2 }}
{{- with $root }}
metadata:
  labels:
    {{- include "pollux.selector" . | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
    {{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Pollux reads both at its start only, so a change of either restarts the pods.
    checksum/config: {{ include "pollux.config" . | sha256sum }}
    checksum/secrets: {{ toJson .Values.secrets | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "pollux.serviceAccount" . }}
  automountServiceAccountToken: false
  # Else a Service called `redis` would set REDIS_PORT to tcp://…, and Pollux reads REDIS_PORT.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "pollux.endsWithin" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: pollux
      image: {{ include "pollux.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      # Behind the image's own `pollux serve --config /etc/pollux/config.yaml --host 0.0.0.0`.
      args:
        - --role
        - {{ $name }}
        - --port
        - "4000"
        - --workers
        - {{ $role.processes | quote }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "pollux.env" . | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      {{- with include "pollux.envFrom" . | trim }}
      envFrom:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 4000, protocol: TCP}
      startupProbe:
        {{- include "pollux.probe" (list . .Values.probes.startup) | nindent 8 }}
      livenessProbe:
        {{- include "pollux.probe" (list . .Values.probes.liveness) | nindent 8 }}
      readinessProbe:
        {{- include "pollux.probe" (list . .Values.probes.readiness) | nindent 8 }}
      {{- if and (ne $name "worker") .Values.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds }}}
      {{- end }}
      {{- with $role.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/pollux, readOnly: true}
        {{- if .Values.store.embedded.enabled }}
        - {name: store, mountPath: /var/lib/pollux}
        # For the store's socket.
        - {name: tmp, mountPath: /tmp}
        {{- end }}
        {{- if .Values.tls.secretName }}
        - {name: tls, mountPath: /etc/pollux-tls, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      {{- include "pollux.configSource" . | trim | nindent 6 }}
    {{- if .Values.store.embedded.enabled }}
    - name: store
      persistentVolumeClaim:
        claimName: {{ .Values.store.embedded.existingClaim | default (include "pollux.fullname" .) }}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- end }}
    {{- with .Values.tls.secretName }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  topologySpreadConstraints:
    {{- include "pollux.spread" (list . $name $role) | trim | nindent 4 }}
  {{- with $role.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $role.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $role.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $role.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A probe, by TLS where pods speak it. The kubelet does not check whose certificate it is. A list: the root, the probe. */}}
{{- define "pollux.probe" -}}
{{- $probe := deepCopy (index . 1) }}
{{- if and (index . 0).Values.tls.secretName $probe.httpGet }}
{{- $_ := set $probe.httpGet "scheme" "HTTPS" }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{- define "pollux.env" -}}
{{- with .Values.store }}
{{- if .embedded.enabled }}
- {name: POLLUX_STORE, value: embedded:///var/lib/pollux/store}
{{- else if .existingSecret.name }}
- name: POLLUX_STORE
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret.name }}, key: {{ .existingSecret.key }}}
{{- else if .url }}
- name: POLLUX_STORE
  value: {{ .url | quote }}
{{- end }}
{{- end }}
{{- if .Values.tls.secretName }}
- {name: SSL_CERTFILE_PATH, value: /etc/pollux-tls/tls.crt}
- {name: SSL_KEYFILE_PATH, value: /etc/pollux-tls/tls.key}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pollux.envFrom" -}}
{{- if .Values.secrets }}
- secretRef: {name: {{ include "pollux.fullname" . }}}
{{- end }}
{{- range .Values.existingSecrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Pods of one role and one version, spread by node and by zone. A list as for pollux.pod. */}}
{{- define "pollux.spread" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $given := (index . 2).topologySpreadConstraints }}
{{- if kindIs "slice" $given }}
{{- toYaml $given }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "pollux.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $name }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}
