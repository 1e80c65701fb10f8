{{/* Resources are named after the release, which one table has. Short enough for what is appended. */}}
{{- define "outboxd.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains "outboxd" $name) }}{{ $name = printf "%s-outboxd" $name }}{{ end }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "outboxd.selector" -}}
app.kubernetes.io/name: outboxd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outboxd.labels" -}}
{{ include "outboxd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "outboxd.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "outboxd.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Mounted secrets are its group's.
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "outboxd.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Settings are variables, so that commands in the pod need no flags. Context: root, files, settings. */}}
{{- define "outboxd.environment" -}}
env:
  {{- range $file, $secret := .files }}
  - { name: {{ include "outboxd.variable" $file }}_FILE, value: /etc/outboxd/{{ $file }} }
  {{- end }}
  {{- range $name, $value := .settings }}
  - { name: {{ include "outboxd.variable" $name }}, value: {{ include "outboxd.plain" $value | quote }} }
  {{- end }}
  {{- if .root.Values.caBundle.name }}
  # Read by the TLS of PostgreSQL, RabbitMQ and Kafka alike.
  - { name: SSL_CERT_FILE, value: /etc/outboxd/ca.pem }
  {{- end }}
  {{- if .root.Values.mapping.name }}
  - { name: OUTBOXD_MAPPING, value: /etc/outboxd/mapping.toml }
  {{- end }}
{{- end }}

{{- define "outboxd.variable" -}}
OUTBOXD_{{ . | replace "-" "_" | upper }}
{{- end }}

{{/* Helm has numbers as floats: a large one would come out as 4e+06. */}}
{{- define "outboxd.plain" -}}
{{ kindIs "float64" . | ternary (printf "%.0f" .) (toString .) }}
{{- end }}

{{/* A projected volume: file name -> Secret and key. Context: root, files. */}}
{{- define "outboxd.volume" -}}
- name: outboxd
  projected:
    defaultMode: 288 # 0440: YAML 1.1 and 1.2 read that differently
    sources:
      {{- range $file, $secret := .files }}
      - secret:
          name: {{ $secret.name }}
          items: [{ key: {{ $secret.key | quote }}, path: {{ $file }} }]
      {{- end }}
      {{- with .root.Values.caBundle }}
      - configMap:
          name: {{ .name }}
          items: [{ key: {{ .key | quote }}, path: ca.pem }]
      {{- end }}
      {{- with .root.Values.mapping }}
      - configMap:
          name: {{ .name }}
          items: [{ key: {{ .key | quote }}, path: mapping.toml }]
      {{- end }}
{{- end }}

{{- define "outboxd.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "outboxd.validate" -}}
{{- $kafka := hasKey .Values.settings "kafka-brokers" }}
{{- $rabbitmq := not (empty .Values.secrets.rabbitmqUrl) }}
{{- if not .Values.secrets.databaseUrl.name }}
{{- fail "secrets.databaseUrl.name is not set: the Secret that holds the database's URL" }}
{{- end }}
{{- if and $kafka $rabbitmq }}
{{- fail "both brokers are set: take either settings.kafka-brokers or secrets.rabbitmqUrl away" }}
{{- end }}
{{- if not (or $kafka $rabbitmq) }}
{{- fail "no broker is set: set settings.kafka-brokers or secrets.rabbitmqUrl" }}
{{- end }}
{{- if le (int .Values.shutdownTimeoutSeconds) (int .Values.publishTimeoutSeconds) }}
{{- fail "shutdownTimeoutSeconds must be longer than publishTimeoutSeconds: what is in flight may take that long" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- end }}
{{- end }}
