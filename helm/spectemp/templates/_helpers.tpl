{{/* Names, labels and what all pods share. */}}

{{- define "spectemp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "spectemp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "spectemp.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "spectemp.selector" -}}
app.kubernetes.io/name: {{ include "spectemp.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "spectemp.labels" -}}
{{ include "spectemp.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "spectemp.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "spectemp.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "spectemp.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "spectemp.workerImage" -}}
{{- $suffix := ternary .Values.image.workerTagSuffix "" (gt (int .Values.worker.gpu.count) 0) -}}
{{- printf "%s:%s%s" (default .Values.image.repository .Values.image.workerRepository) (default .Chart.AppVersion .Values.image.tag) $suffix -}}
{{- end -}}

{{- define "spectemp.databaseSecret" -}}
{{- if .Values.database.bundled.enabled -}}
{{- printf "%s-postgres" (include "spectemp.fullname" .) -}}
{{- else -}}
{{- required "database.existingSecret is needed (or database.bundled.enabled for a trial)" .Values.database.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "spectemp.redisSecret" -}}
{{- if .Values.redis.bundled.enabled -}}
{{- printf "%s-redis" (include "spectemp.fullname" .) -}}
{{- else -}}
{{- required "redis.existingSecret is needed (or redis.bundled.enabled for a trial)" .Values.redis.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* One variable from a secret: name, secret, key. */}}
{{- define "spectemp.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- end -}}

{{/* The logins that a component needs. Takes root and component. */}}
{{- define "spectemp.databaseEnv" -}}
{{- $values := .root.Values -}}
{{- $secret := include "spectemp.databaseSecret" .root -}}
{{- $keys := ternary (dict "url" "url" "readerUrl" "reader-url" "readerPassword" "reader-password") $values.database.keys $values.database.bundled.enabled -}}
{{ include "spectemp.fromSecret" (dict "name" "SPECTEMP_DATABASE_URL" "secret" $secret "key" $keys.url) }}
{{- if eq .component "api" }}
{{ include "spectemp.fromSecret" (dict "name" "SPECTEMP_READER_URL" "secret" $secret "key" $keys.readerUrl) }}
{{- else if eq .component "migrate" }}
{{ include "spectemp.fromSecret" (dict "name" "SPECTEMP_READER_PASSWORD" "secret" $secret "key" $keys.readerPassword) }}
{{- end }}
{{- end -}}

{{/* What API and workers share: ledger, doorbell, objects, logs, traces. Takes root and component. */}}
{{- define "spectemp.env" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{ include "spectemp.databaseEnv" . }}
{{ include "spectemp.fromSecret" (dict "name" "SPECTEMP_REDIS_URL" "secret" (include "spectemp.redisSecret" $root) "key" (ternary "url" $values.redis.keys.url $values.redis.bundled.enabled)) }}
- name: SPECTEMP_OBJECTS
  value: {{ required "objects.prefix is needed, for example s3://my-bucket/spectemp/" $values.objects.prefix | quote }}
- name: SPECTEMP_ALLOW
  value: {{ prepend $values.objects.allow $values.objects.prefix | uniq | join "," | quote }}
{{- with $values.objects.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $values.objects.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
- name: SPECTEMP_LOG
  value: {{ (index $values .component).log | quote }}
- name: SPECTEMP_HOME
  value: /var/lib/spectemp
{{- with $values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_SERVICE_NAME
  value: spectemp-{{ $.component }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: service.instance.id=$(POD_NAME),k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ $root.Release.Namespace }}
{{- end }}
{{- with (index $values .component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "spectemp.envFrom" -}}
{{- with .Values.objects.existingSecret -}}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end -}}
{{- end -}}

{{/* The beginning of every pod of ours. */}}
{{- define "spectemp.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Pods start anew where a password of the chart's own changes. */}}
{{- define "spectemp.rollAnnotations" -}}
checksum/settings: {{ dict "database" .Values.database "redis" .Values.redis "objects" .Values.objects | toJson | sha256sum }}
{{- end -}}
