{{- define "vnetd.selector" -}}
app.kubernetes.io/name: vnetd
{{- end }}

{{- define "vnetd.labels" -}}
{{ include "vnetd.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "vnetd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* vnetd.yaml: what was given, with what follows from the rest of the values */}}
{{- define "vnetd.config" -}}
{{- $defaults := dict "peers" (list (printf "vnetd-nodes.%s.svc" .Release.Namespace)) }}
{{- if .Values.monitoring.enabled }}
{{- $_ := set $defaults "metricsListen" "0.0.0.0:11798" }}
{{- $_ := set $defaults "metricsTokenFile" "/etc/vnetd/metrics/token" }}
{{- end }}
{{- mergeOverwrite $defaults (deepCopy .Values.config) | toYaml }}
{{- end }}
